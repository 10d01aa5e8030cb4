"""The files that COPY adds to an image, and where, as the tar of a layer.

The tar describes every folder on the way, as the image so far has it, so that it depends on nothing below. The same
files on the same folders give the same bytes; their digest is what the build cache asks for.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from images.layer.lookup import Node, View
from images.layer.tree import LINKS_MAX, WHITEOUT_PREFIX, Attributes
from images.recipes import files
from images.recipes.files import Files, Layers
from images.recipes.modes import Mode
from images.recipes.sources import Source
from images.recipes.tarstream import Entry, tar
from vmctl.errors import SpecError

_FOLDER = Attributes(stat.S_IFDIR | 0o755)


class Owner(NamedTuple):
    """The owner of the files that are copied."""

    uid: int
    gid: int


class Placement:
    """Collects what one step adds to the image below it. It is Files itself: the image with what has been placed."""

    what = "the image"
    has_outside = False

    def __init__(self, view: View, *, owner: Owner | None, mode: Mode | None, newest_ns: int) -> None:
        self._below = Layers(view, self.what)
        self._owner = owner
        self._mode = mode
        self._newest_ns = newest_ns
        self._entries: dict[str, Entry] = {}

    def node(self, path: str) -> Node | None:
        """See Files."""
        return self._entries[path].node if path in self._entries else self._below.node(path)

    def names(self, path: str) -> list[str]:
        """See Files."""
        return self._below.names(path)

    def content(self, path: str) -> Iterator[bytes]:
        """See Files."""
        return self._below.content(path)

    def inside(self, target: str) -> str:
        """See Files."""
        return target

    def pieces(self) -> Iterator[bytes]:
        """Yield the layer's tar; every time the same."""
        return tar(self._entries.values())

    def is_folder(self, path: str) -> bool:
        """Return whether the image has a folder at a path."""
        resolved = files.resolve(self, path)
        node = self.node(resolved) if resolved is not None else None
        return node is not None and stat.S_ISDIR(node.attributes.mode)

    def folder(self, path: str) -> str:
        """Make a folder unless it exists, with those above it, and return its path. Raises SpecError."""
        self._describe("", self.node("") or Node(_FOLDER, 0, 1))
        reached, waiting, followed = "", files.pieces(path), 0
        while waiting:
            name = waiting.pop()
            inner = posixpath.join(reached, name)
            node = self.node(inner)
            if name == "..":
                reached = posixpath.dirname(reached)
            elif node is None:
                reached = inner
                self._entries[reached] = Entry(reached, Node(self._new_folder(), 0, 1))
            elif node.target and followed < LINKS_MAX:
                followed += 1
                reached = "" if node.target.startswith(b"/") else reached
                waiting += files.pieces(os.fsdecode(node.target))
            elif not stat.S_ISDIR(node.attributes.mode):
                raise SpecError(f"/{inner} is a file in the image and cannot contain others")
            else:
                reached = inner
                self._describe(reached, node)
        return reached

    def _describe(self, path: str, node: Node) -> None:
        if path not in self._entries:
            self._entries[path] = Entry(path, node._replace(attributes=self._dated(node.attributes)))

    def place(self, path: str, node: Node, content: Callable[[], Iterator[bytes]], *, as_is: bool = False) -> str:
        """Put something other than a folder at a path; the folders above it are made. Return where. Raises SpecError.

        `as_is`: with the owner and mode that the node has.
        """
        path = path.lstrip("/")
        folder, name = posixpath.split(path)
        if not name or name in (".", ".."):
            raise SpecError(f"/{path} cannot be the path of a file")
        if name.startswith(WHITEOUT_PREFIX.decode()):
            raise SpecError(f"a file {name} cannot be in a layer, where such a name means a deletion")
        where = posixpath.join(self.folder(folder), name)
        there = self.node(where)
        if there is not None and stat.S_ISDIR(there.attributes.mode):
            raise SpecError(f"/{where} is a folder in the image and cannot become a file")
        placed = node._replace(attributes=self._dated(node.attributes) if as_is else self._copied(node.attributes))
        self._enter(Entry(where, placed, content))
        return where

    def place_link(self, path: str, to: str) -> str:
        """Give a file that has been placed one more name; return where. Raises SpecError."""
        first = self._entries.get(files.resolve(self, to) or "")
        if first is None or stat.S_ISDIR(first.node.attributes.mode):
            raise SpecError(f"/{path} is a hard link to /{to}, which is not there")
        where = posixpath.join(self.folder(posixpath.dirname(path)), posixpath.basename(path))
        if where != first.path:
            self._enter(Entry(where, first.node, hard_link=first.hard_link or first.path))
        return where

    def _enter(self, entry: Entry) -> None:
        self._entries.pop(entry.path, None)  # it takes its own place in the order, which is that of contents
        self._entries[entry.path] = entry

    def place_folder(self, path: str, attributes: Attributes, *, as_is: bool = False) -> str:
        """Put a folder at a path: a new one has the attributes given, one that is there keeps its own. See `place`."""
        is_new = not self.is_folder(path)
        where = self.folder(path)
        if is_new:
            self._entries[where] = Entry(
                where, Node(self._dated(attributes) if as_is else self._copied(attributes), 0, 1)
            )
        return where

    def copy(self, origin: Files, source: Source, target: str) -> None:
        """Copy a file to a path, or what is in a folder into the folder at a path."""
        target = target.lstrip("/")
        if stat.S_ISDIR(source.node.attributes.mode):
            self._copy_inside(origin, source.path, self.folder(target))  # not with the source's mode, as Docker has it
        else:
            self.place(self._through_link(target), source.node, lambda: origin.content(source.path))

    def _through_link(self, target: str) -> str:
        """Return where a file goes whose target is a symbolic link in the image: to where the link leads."""
        return files.resolve(self, target) or target

    def _copy_inside(self, origin: Files, source: str, target: str) -> None:
        waiting = [(source, target)]
        while waiting:
            folder, place = waiting.pop()
            for name in origin.names(folder):
                path, inner = posixpath.join(folder, name), posixpath.join(place, name)
                node = origin.node(path)
                if node is None:
                    continue
                if stat.S_ISDIR(node.attributes.mode):
                    waiting.append((path, self.place_folder(inner, node.attributes)))
                else:
                    self.place(inner, node, lambda path=path: origin.content(path))  # type: ignore[misc]

    def _new_folder(self) -> Attributes:
        """Return the attributes of a folder that only has to be there."""
        return self._to_owner(_FOLDER)._replace(mtime_ns=self._newest_ns)

    def _copied(self, attributes: Attributes) -> Attributes:
        """Return the attributes of a copy."""
        if self._mode is not None and not stat.S_ISLNK(attributes.mode):
            attributes = attributes._replace(mode=self._mode(attributes.mode))
        return self._dated(self._to_owner(attributes))

    def _to_owner(self, attributes: Attributes) -> Attributes:
        return attributes if self._owner is None else attributes._replace(uid=self._owner.uid, gid=self._owner.gid)

    def _dated(self, attributes: Attributes) -> Attributes:
        return attributes._replace(mtime_ns=min(attributes.mtime_ns, self._newest_ns))
