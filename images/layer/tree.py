"""The file tree of one layer while its tar is read: names and inode numbers, without the contents.

A layer's whiteouts (image-spec, layer.md) are stored in the form overlayfs reads (Linux:
Documentation/filesystems/overlayfs.rst): a deleted name is a character device 0/0, and a folder that hides the folder
below it has the attribute `trusted.overlay.opaque`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

from images.store.image import ImageError
from vmctl.linux import usernamespace
from vmctl.named import NamedTuple

WHITEOUT_PREFIX, OPAQUE_MARKER, AUFS_PREFIX = b".wh.", b".wh..wh..opq", b".wh..wh."
OPAQUE = "trusted.overlay.opaque"
OPAQUE_OF_USERS = "user.overlay.opaque"  # written by overlayfs in a user namespace (overlayfs.rst, "userxattr")
NAME_BYTES_MAX = 255
LINKS_MAX = 40  # as the kernel's: path_resolution(7)


def opaque_attribute() -> str:
    """Return the attribute that marks opaque folders in the writable layers of this user."""
    return OPAQUE if usernamespace.is_host_root() else OPAQUE_OF_USERS


class _NotAFolderError(ImageError):
    """A path goes through a name that is not a folder."""


class Attributes(NamedTuple):
    """The attributes of an inode."""

    mode: int  # type and permissions
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0  # since the epoch
    xattrs: Mapping[str, bytes] = {}


class Leaf:
    """A name of a file that is not a folder. Names with the same inode number are hard links."""

    __slots__ = ("kind", "linked", "number", "target")

    def __init__(self, number: int, kind: int, target: bytes = b"") -> None:
        self.number = number  # number of the inode
        self.kind = kind  # stat.S_IFMT of its mode
        self.target = target  # target of a symbolic link
        self.linked = False  # it has more than one name


class Directory:
    """A folder. `implied`: the tar has no entry for it, only entries below it."""

    __slots__ = ("attributes", "children", "implied", "opaque")

    def __init__(self, attributes: Attributes, *, implied: bool = False, opaque: bool = False) -> None:
        self.attributes = attributes
        self.children: dict[bytes, Directory | Leaf] = {}
        self.implied = implied
        self.opaque = opaque


DEFAULT_FOLDER = Attributes(stat.S_IFDIR | 0o755)

# Returns what the layers below have at a path: the attributes of a folder, the target of a symbolic link, or None for
# anything else. Called only for folders without an entry in the tar.
Below = Callable[[bytes], Attributes | bytes | None]


class Tree:
    """The tree of a layer. Methods raise ImageError if an entry cannot be part of a file tree."""

    def __init__(self, below: Below) -> None:
        self._below = below
        self.root = Directory(DEFAULT_FOLDER)
        self.whiteout = Leaf(-1, stat.S_IFCHR)  # shared by all deleted names; the caller sets its inode number
        self.whiteout.linked = True
        self.deletes = False

    def add_folder(self, path: bytes, attributes: Attributes) -> None:
        """Add a folder, or set the attributes of an existing folder."""
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
        """Add a file that is not a folder; it replaces an earlier entry of that name."""
        parent, name = self._parent(_named(path))
        parent.children[name] = leaf

    def add_link(self, path: bytes, target: bytes) -> None:
        """Add a hard link to a file."""
        parent, name = self._parent(_named(target.lstrip(b"/")))  # always relative to the root of the tar
        leaf = parent.children.get(name)
        if not isinstance(leaf, Leaf) or leaf is self.whiteout:
            raise ImageError(f"the hard link {_shown(path)} refers to {_shown(target)}, which is not in the layer")
        leaf.linked = True
        self.add_leaf(path, leaf)

    def add_marker(self, path: bytes) -> bool:
        """Record a whiteout or an opaque marker; return whether the name is one of these."""
        parts = _parts(path)
        if not parts or not parts[-1].startswith(WHITEOUT_PREFIX):
            return False
        with suppress(_NotAFolderError):  # if a file replaces a folder, umoci writes whiteouts for its content, too
            if parts[-1] == OPAQUE_MARKER:
                self._folder(parts[:-1]).opaque = True
            elif not parts[-1].startswith(AUFS_PREFIX):  # metadata of aufs
                self._delete(parts)
        return True

    def finish(self) -> bool:
        """Set the attribute of opaque folders; return whether any folder took attributes from the layers below."""
        if self.root.opaque:
            raise ImageError("a layer with an opaque root folder is not supported", hint="build the image FROM scratch")
        implied = False
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            implied = implied or folder.implied
            if folder.opaque:
                xattrs = {**folder.attributes.xattrs, OPAQUE: b"y"}
                folder.attributes = folder.attributes._replace(xattrs=xattrs)
                # overlayfs lists the whiteouts of a folder that has nothing below it
                for name in [name for name, child in folder.children.items() if child is self.whiteout]:
                    del folder.children[name]
            waiting.extend(child for child in folder.children.values() if isinstance(child, Directory))
        return implied

    def _delete(self, parts: list[bytes]) -> None:
        name = parts[-1].removeprefix(WHITEOUT_PREFIX)
        if name in (b"", b".", b".."):
            raise ImageError(f"the layer has the whiteout {_shown(b'/'.join(parts))} without a valid name")
        parent, _ = self._parent(parts)
        there = parent.children.get(name)
        if isinstance(there, Directory):
            there.opaque = True  # deleted and created again in one layer
        elif there is None:
            parent.children[name] = self.whiteout
            self.deletes = True

    def _parent(self, parts: list[bytes]) -> tuple[Directory, bytes]:
        return self._folder(parts[:-1]), parts[-1]

    def _folder(self, parts: list[bytes]) -> Directory:
        """Return a folder; add it if it is missing. Symbolic links are followed inside the tree."""
        waiting = list(reversed(parts))
        path: list[bytes] = []
        folders = [self.root]
        followed = 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                if not path:
                    raise ImageError(f"the path {_shown(b'/'.join(parts))} leads out of the image")
                path.pop()
                folders.pop()
                continue
            found = self._step(folders[-1], [*path, part])
            if isinstance(found, Directory):
                path.append(part)
                folders.append(found)
                continue
            followed += 1
            if followed > LINKS_MAX:
                raise ImageError(f"the path {_shown(b'/'.join(parts))} goes through too many symbolic links")
            if found.startswith(b"/"):
                path, folders = [], [self.root]
            waiting.extend(reversed([piece for piece in found.split(b"/") if piece not in (b"", b".")]))
        return folders[-1]

    def _step(self, folder: Directory, path: list[bytes]) -> Directory | bytes:
        """Return the folder at `path`, whose parent is `folder`, or the target of a link; add a missing folder."""
        there = folder.children.get(path[-1])
        if isinstance(there, Directory):
            return there
        if there is not None and there.kind == stat.S_IFLNK:
            return there.target
        if there is not None and there is not self.whiteout:
            raise _NotAFolderError(f"{_shown(b'/'.join(path))} is both a file and a folder in the layer")
        below = None if there is not None else self._below(b"/".join(path))
        if isinstance(below, bytes):
            return below
        added = Directory(below or DEFAULT_FOLDER, implied=True, opaque=there is not None)
        folder.children[path[-1]] = added
        return added


def _named(path: bytes) -> list[bytes]:
    parts = _parts(path)
    if not parts:
        raise ImageError("the root of the layer is not a folder")
    return parts


def _parts(path: bytes) -> list[bytes]:
    """Return the names of a path, relative to the root. Raises ImageError if the path leads out of it.

    As other unpackers do, it takes `/usr` for `usr` and `a/../b` for `b`, even if `a` is a link.
    """
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts and not path.startswith(b"/"):
                raise ImageError(f"the layer has a name that leads out of it, {_shown(path)}")
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    if b"\0" in path or any(len(part) > NAME_BYTES_MAX for part in parts):
        raise ImageError(f"the layer has an invalid name, {_shown(path)}")
    return parts


def _shown(path: bytes) -> str:
    return repr(path[:200].decode(errors="replace"))
