"""The file tree of one layer, while it is being read from a tar: names and what they stand for, contents elsewhere.

What layers say about the layers below them (image-spec, layer.md: whiteouts) is kept in the form overlayfs reads
(Linux: Documentation/filesystems/overlayfs.rst): a deleted name is a character device 0/0, a folder that hides the one
below it has the attribute `trusted.overlay.opaque`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

from images.store.image import ImageError
from vmctl.named import NamedTuple

WHITEOUT_PREFIX, OPAQUE_MARKER, AUFS_PREFIX = b".wh.", b".wh..wh..opq", b".wh..wh."
OPAQUE = "trusted.overlay.opaque"
NAME_BYTES_MAX = 255
LINKS_MAX = 40  # as the kernel's: path_resolution(7)


class _FileInTheWayError(ImageError):
    """A path goes through something that is no folder."""


class Attributes(NamedTuple):
    """What an inode says of itself."""

    mode: int  # with the type
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0  # since the epoch
    xattrs: Mapping[str, bytes] = {}


class Leaf:
    """A name of anything that is not a folder; names with one inode number are hard links of each other."""

    __slots__ = ("kind", "linked", "number", "target")

    def __init__(self, number: int, kind: int, target: bytes = b"") -> None:
        self.number = number  # of the inode
        self.kind = kind  # stat.S_IFMT of its mode
        self.target = target  # of a symbolic link
        self.linked = False  # it has more than one name


class Directory:
    """A folder. `implied`: no entry of the tar describes it, only what lies in it."""

    __slots__ = ("attributes", "children", "implied", "opaque")

    def __init__(self, attributes: Attributes, *, implied: bool = False, opaque: bool = False) -> None:
        self.attributes = attributes
        self.children: dict[bytes, Directory | Leaf] = {}
        self.implied = implied
        self.opaque = opaque


DEFAULT_FOLDER = Attributes(stat.S_IFDIR | 0o755)

# What the layers below have at a path: the attributes of a folder, the target of a symbolic link, or None for anything
# else; asked only for folders that the tar does not describe
Below = Callable[[bytes], Attributes | bytes | None]


class Tree:
    """The tree. Raises ImageError for what no tree of files can be."""

    def __init__(self, below: Below) -> None:
        self._below = below
        self.root = Directory(DEFAULT_FOLDER)
        self.whiteout = Leaf(-1, stat.S_IFCHR)  # stands for every deleted name; the number is the writer's to give
        self.whiteout.linked = True
        self.deletes = False

    def add_folder(self, path: bytes, attributes: Attributes) -> None:
        """Add a folder, or describe one that is there."""
        if not (parts := _parts(path)):
            self.root.attributes = attributes
            return
        parent, name = self._parent(parts)
        there = parent.children.get(name)
        if isinstance(there, Directory):
            there.attributes, there.implied = attributes, False
        else:
            parent.children[name] = Directory(attributes, opaque=there is self.whiteout)

    def add_leaf(self, path: bytes, leaf: Leaf) -> None:
        """Add anything else; it replaces what has the name."""
        parent, name = self._parent(_named(path))
        parent.children[name] = leaf

    def add_link(self, path: bytes, target: bytes) -> None:
        """Give a file one more name."""
        parent, name = self._parent(_named(target.lstrip(b"/")))  # from the root of the tar in any case
        leaf = parent.children.get(name)
        if not isinstance(leaf, Leaf) or leaf is self.whiteout:
            raise ImageError(f"the hard link {_shown(path)} leads to {_shown(target)}, which the layer does not have")
        leaf.linked = True
        self.add_leaf(path, leaf)

    def add_marker(self, path: bytes) -> bool:
        """Take a name that says something of the layers below; return whether it was one."""
        parts = _parts(path)
        if not parts or not parts[-1].startswith(WHITEOUT_PREFIX):
            return False
        with suppress(_FileInTheWayError):  # umoci also says of what a file replaces that all in it is gone
            if parts[-1] == OPAQUE_MARKER:
                self._folder(parts[:-1]).opaque = True
            elif not parts[-1].startswith(AUFS_PREFIX):  # those are a note of aufs to itself
                self._delete(parts)
        return True

    def settle(self) -> bool:
        """Put the marks of opaque folders in place; return whether attributes were taken from the layers below."""
        if self.root.opaque:
            raise ImageError("a layer that empties the root folder is not supported", hint="build the image on nothing")
        implied = False
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            implied = implied or folder.implied
            if folder.opaque:
                xattrs = {**folder.attributes.xattrs, OPAQUE: b"y"}
                folder.attributes = folder.attributes._replace(xattrs=xattrs)
                # in a folder that shows nothing from below a deleted name would be listed
                gone = [name for name, child in folder.children.items() if child is self.whiteout]
                for name in gone:
                    del folder.children[name]
            waiting.extend(child for child in folder.children.values() if isinstance(child, Directory))
        return implied

    def _delete(self, parts: list[bytes]) -> None:
        name = parts[-1].removeprefix(WHITEOUT_PREFIX)
        if name in (b"", b".", b".."):
            raise ImageError(f"the layer deletes {_shown(b'/'.join(parts))}, which is no name")
        parent, _ = self._parent(parts)
        there = parent.children.get(name)
        if isinstance(there, Directory):
            there.opaque = True  # deleted and made anew, in one layer
        elif there is None:
            parent.children[name] = self.whiteout
            self.deletes = True

    def _parent(self, parts: list[bytes]) -> tuple[Directory, bytes]:
        return self._folder(parts[:-1]), parts[-1]

    def _folder(self, parts: list[bytes]) -> Directory:
        """Return a folder, made where it is missing. Symbolic links on the way are followed, inside the tree."""
        waiting = list(reversed(parts))
        way: list[bytes] = []
        folders = [self.root]
        followed = 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                if not way:
                    raise ImageError(f"the path {_shown(b'/'.join(parts))} leads out of the image")
                way.pop()
                folders.pop()
                continue
            found = self._step(folders[-1], [*way, part])
            if isinstance(found, Directory):
                way.append(part)
                folders.append(found)
                continue
            followed += 1
            if followed > LINKS_MAX:
                raise ImageError(f"the path {_shown(b'/'.join(parts))} goes through too many symbolic links")
            if found.startswith(b"/"):
                way, folders = [], [self.root]
            waiting.extend(reversed([piece for piece in found.split(b"/") if piece not in (b"", b".")]))
        return folders[-1]

    def _step(self, folder: Directory, way: list[bytes]) -> Directory | bytes:
        """Return the folder at the end of `way`, made where it is missing, or the target of the link that is there."""
        there = folder.children.get(way[-1])
        if isinstance(there, Directory):
            return there
        if there is not None and there.kind == stat.S_IFLNK:
            return there.target
        if there is not None and there is not self.whiteout:
            raise _FileInTheWayError(f"{_shown(b'/'.join(way))} is a file in the layer and a folder, too")
        known = None if there is not None else self._below(b"/".join(way))
        if isinstance(known, bytes):
            return known
        made = Directory(known or DEFAULT_FOLDER, implied=True, opaque=there is not None)
        folder.children[way[-1]] = made
        return made


def _named(path: bytes) -> list[bytes]:
    parts = _parts(path)
    if not parts:
        raise ImageError("the layer has something other than a folder in the place of its root")
    return parts


def _parts(path: bytes) -> list[bytes]:
    """Return the names of a path from the root. Raises ImageError for one that is not below it."""
    if path.startswith(b"/"):
        raise ImageError(f"the layer has an absolute name, {_shown(path)}")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageError(f"the layer has a name that leads out of it, {_shown(path)}")
    if b"\0" in path or any(len(part) > NAME_BYTES_MAX for part in parts):
        raise ImageError(f"the layer has a name that no file can have, {_shown(path)}")
    return parts


def _shown(path: bytes) -> str:
    return repr(path[:200].decode(errors="replace"))
