"""COPY, ADD and WORKDIR: files that are added without running a command."""

from __future__ import annotations

import hashlib
import posixpath
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from images.layer import layers
from images.layer.lookup import Node, View
from images.layer.readers import from_iterator
from images.layer.tree import Attributes
from images.recipes import accounts, files, instructions, sources, unpack
from images.recipes.files import Fetched, Files
from images.recipes.modes import Mode
from images.recipes.placement import Owner, Placement
from images.recipes.sources import Rest, Source
from images.recipes.steps import Copy
from images.store.image import Layer
from images.store.staging import Stage

_NANO = 10**9


class Addition:
    """The files that one step adds, placed: a context manager, since sources are open meanwhile."""

    def __init__(self, below: Sequence[Layer], epoch_s: int) -> None:
        self._below = below
        self._newest_ns = epoch_s * _NANO
        self._stack = ExitStack()
        self._placement: Placement | None = None

    def __enter__(self) -> Addition:
        self._view = self._stack.enter_context(View(self._below))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def has_folder(self, path: str) -> bool:
        """Return whether the image has a folder at an absolute path."""
        return self._place(None, None).is_folder(path)

    def folder(self, path: str, user: str) -> None:
        """Add a folder that belongs to a user. Raises ValueError, and SpecError if a file is in its place."""
        self._placement = self._place(accounts.owner(self._view, user) if user else None, None)
        self._placement.folder(path)

    def copy(self, copy: Copy, origin: Files, workdir: str, fetched: Sequence[Fetched] = ()) -> None:
        """Add the files of a COPY whose variables are filled in, and those downloaded. Raises ValueError, SpecError."""
        owner = accounts.owner(self._view, copy.owner) if copy.owner else None
        self._placement = placement = self._place(owner, Mode(copy.mode) if copy.mode else None)
        found = [source for pattern in copy.sources for source in sources.find(origin, pattern, parents=copy.parents)]
        target = instructions.absolute(copy.target, workdir)
        count = len(copy.sources) if copy.parents else len(found)
        if count + len(copy.inline) + len(fetched) > 1 and not target.endswith("/"):
            raise ValueError(f"several sources go into a folder: {copy.target} must end with /")
        into_folder = target.endswith("/") or placement.is_folder(target)
        self._files(copy, origin, found, target, into_folder=into_folder)
        for one in fetched:
            if copy.unpack and unpack.is_archive(one.path):
                unpack.unpack(placement, one.path, one.name or "the archive", target, self._stack)
                continue
            if into_folder and not one.name:
                raise ValueError(f"a URL that ends with / gives the file no name: {copy.target} must be a file")
            attributes = Attributes(stat.S_IFREG | 0o600, 0, 0, one.mtime_ns)  # as Docker has it
            where = posixpath.join(target, one.name) if into_folder else target
            placement.place(where, Node(attributes, one.size_bytes, 1), one.content)
        for part in copy.inline:
            data = part.content.encode("utf-8", "surrogateescape")
            attributes = Attributes(stat.S_IFREG | 0o644, 0, 0, self._newest_ns)
            where = posixpath.join(target, part.name) if into_folder else target
            placement.place(where, Node(attributes, len(data), 1), lambda data=data: iter((data,)))  # type: ignore[misc]

    def _files(self, copy: Copy, origin: Files, found: Sequence[Source], target: str, *, into_folder: bool) -> None:
        """Place what the sources name."""
        placement, left_out = self._placement, sources.excluded(copy.exclude)
        assert placement is not None
        for source in found:
            is_folder = stat.S_ISDIR(source.node.attributes.mode)
            shown = source.name if copy.parents or not is_folder else ""  # a folder's own name is not in the paths
            if shown and left_out(shown) and not (is_folder and left_out.may_keep_below):
                continue
            path = files.host_path(origin, source.path) if copy.extract and copy.unpack is not False else None
            if path is not None and stat.S_ISREG(source.node.attributes.mode) and unpack.is_archive(path):
                unpack.unpack(placement, path, source.path, target, self._stack)
                continue
            rest = Rest(origin, left_out, source.path, shown if is_folder else "") if copy.exclude else origin
            if copy.parents:
                self._parents(origin, source, target)
            below = copy.parents or (into_folder and not is_folder)
            placement.copy(rest, source, posixpath.join(target, source.name) if below else target)

    def _parents(self, origin: Files, source: Source, target: str) -> None:
        """Place the folders that --parents keeps above a source, with the attributes that they have there."""
        assert self._placement is not None
        names = source.name.split("/")
        if not stat.S_ISDIR(source.node.attributes.mode):
            names.pop()
        for depth in range(1, len(names) + 1 if source.name else 1):
            kept = "/".join(names[:depth])
            node = origin.node(files.resolve(origin, files.joined(source.base, kept)) or "")
            if node is not None:
                self._placement.place_folder(posixpath.join(target, kept), node.attributes)

    def _place(self, owner: Owner | None, mode: Mode | None) -> Placement:
        return Placement(self._view, owner=owner, mode=mode, newest_ns=self._newest_ns)

    def digest(self) -> str:
        """Return the digest that the layer will have."""
        sha256 = hashlib.sha256()
        for piece in self._pieces():
            sha256.update(piece)
        return "sha256:" + sha256.hexdigest()

    def layer(self, stage: Stage, diff_id: str) -> Layer:
        """Write the layer into the stage. Raises ImageError if a source has changed since `digest`."""
        return layers.from_tar(stage, from_iterator(self._pieces()), below=self._below, diff_id=diff_id)

    def _pieces(self) -> Iterator[bytes]:
        assert self._placement is not None
        return self._placement.pieces()
