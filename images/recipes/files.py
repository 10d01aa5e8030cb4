"""Where COPY takes files from: a folder of the host (the context), or the layers of a stage or an image."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from images.layer.lookup import Node, View
from images.layer.tree import LINKS_MAX, Attributes
from images.recipes.ignore import Ignore
from vmctl.errors import SpecError

_PART = 1 << 20


class Files(Protocol):
    """A tree of files. Paths are relative to its root, which is ''; none of them has `.` or `..` in it."""

    what: str  # for errors
    has_outside: bool  # `..` at the root leads out of the tree

    def node(self, path: str) -> Node | None:
        """Return what is at a path, not following the last name; None if nothing is there, or it is left out."""

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, sorted."""

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file."""

    def inside(self, target: str) -> str:
        """Return an absolute link's target as a path of this tree. Raises SpecError for one that leads out."""


class Context:
    """A folder of the host, without what its .dockerignore names. Everything in it counts as root's.

    It is read through `view`: see vmctl.linux.views.
    """

    has_outside = True

    def __init__(self, folder: str, ignore: Ignore, view: str = "") -> None:
        self.what = f"the context {folder}"
        self._root = os.path.realpath(folder)
        self._view = view or self._root
        self._ignore = ignore

    def node(self, path: str) -> Node | None:
        """See Files."""
        try:
            status = os.lstat(self.host(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise SpecError(f"{path!r} is not a valid path: {error}") from None
        is_folder = stat.S_ISDIR(status.st_mode)
        if stat.S_ISSOCK(status.st_mode) or (
            path and self._ignore(path) and not (is_folder and self._keeps_below(path))
        ):
            return None
        target = os.fsencode(os.readlink(self.host(path))) if stat.S_ISLNK(status.st_mode) else b""
        attributes = Attributes(status.st_mode, 0, 0, status.st_mtime_ns)
        return Node(attributes, status.st_size, 1, status.st_rdev, target)

    def _keeps_below(self, path: str) -> bool:
        """Return whether a folder that is left out has something in it that is not."""
        if not self._ignore.may_keep_below:
            return False
        return any(self.node(f"{path}/{name}") is not None for name in self.names(path))

    def names(self, path: str) -> list[str]:
        """See Files."""
        return sorted(os.listdir(self.host(path)), key=os.fsencode)

    def content(self, path: str) -> Iterator[bytes]:
        """See Files."""
        # it may have been replaced since `node`: do not follow a link, do not wait for a FIFO
        try:
            fd = os.open(self.host(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SpecError(f"{path} in {self.what} cannot be read: {error.strerror}") from None
        with os.fdopen(fd, "rb", buffering=0) as file:
            while data := file.read(_PART):
                yield data

    def inside(self, target: str) -> str:
        """See Files."""
        real = os.path.normpath(target)
        if real != self._root and not real.startswith(self._root.rstrip("/") + "/"):
            raise SpecError(f"a symbolic link to {target} leads out of {self.what}", hint="copy the file into it")
        return os.path.relpath(real, self._root)

    def host(self, path: str) -> str:
        """Return the path on the host."""
        return os.path.join(self._view, path)


class Layers:
    """The files of a stage or an image, read from the files of its layers: nothing is mounted."""

    has_outside = False

    def __init__(self, view: View, what: str) -> None:
        self.what = what
        self._view = view

    def node(self, path: str) -> Node | None:
        """See Files."""
        return self._view.find(path, follow=False)

    def names(self, path: str) -> list[str]:
        """See Files."""
        return list(map(os.fsdecode, self._view.names(path)))

    def content(self, path: str) -> Iterator[bytes]:
        """See Files."""
        return self._view.content(path)

    def inside(self, target: str) -> str:
        """See Files."""
        return target


class Nothing:
    """The context of a Dockerfile that came from standard input, without a folder."""

    what = "the context, which is empty,"
    has_outside = False

    def node(self, path: str) -> Node | None:
        """See Files."""
        return None

    def names(self, path: str) -> list[str]:
        """See Files."""
        return []

    def content(self, path: str) -> Iterator[bytes]:
        """See Files."""
        return iter(())

    def inside(self, target: str) -> str:
        """See Files."""
        return target


class Fetched(NamedTuple):
    """A file that was downloaded."""

    name: str  # empty: its URL ends with a slash
    path: str  # on the host
    size_bytes: int
    mtime_ns: int

    def content(self) -> Iterator[bytes]:
        """Yield its content."""
        with open(self.path, "rb") as file:
            while data := file.read(_PART):
                yield data


def resolve(files: Files, path: str) -> str | None:
    """Return the path that a path leads to, every symbolic link followed; None if it leads nowhere.

    Raises SpecError if it leads out of the tree.
    """
    waiting = pieces(path)
    reached: list[str] = []
    followed = 0
    while waiting:
        name = waiting.pop()
        if name == "..":
            if not reached and files.has_outside:
                raise SpecError(f"{path} leads out of {files.what}", hint="copy the file into it")
            reached = reached[:-1]
            continue
        node = files.node("/".join([*reached, name]))
        if node is None:
            return None
        if not node.target:
            reached.append(name)
            continue
        followed += 1
        if followed > LINKS_MAX:
            return None
        target = os.fsdecode(node.target)
        if target.startswith("/"):
            reached, target = [], files.inside(target)
        waiting += pieces(target)
    return "/".join(reached)


def pieces(path: str) -> list[str]:
    """Return the names of a path, the last one first."""
    return [piece for piece in reversed(path.split("/")) if piece not in ("", ".")]


def joined(folder: str, name: str) -> str:
    """Return the path of a name in a folder; the root is ''."""
    return f"{folder}/{name}" if folder else name


def host_path(files: Files, path: str) -> str | None:
    """Return the path of a file on the host, None if it is in layers."""
    return files.host(path) if isinstance(files, Context) else None
