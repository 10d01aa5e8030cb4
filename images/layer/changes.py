"""The changes of an instance to its image: its writable layer compared with the image's layers.

The writable layer is an upper directory of overlayfs (Linux: Documentation/filesystems/overlayfs.rst): its entries hide
entries of the same name below, a character device 0/0 deletes a name, and a folder with the attribute
`trusted.overlay.opaque` (in a user namespace `user.overlay.opaque`) hides all of the folder below.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress

from images.layer.lookup import Node, View
from images.layer.tree import LINKS_MAX, opaque_attribute
from images.store.image import Layer
from vmctl.named import NamedTuple
from vmctl.writable import Writable

_OF_OVERLAYFS = ("trusted.overlay.", "user.overlay.")  # attributes that overlayfs sets and hides from the workload
_OF_THE_HOST = "security.selinux"  # a label for the place of the file on the host
# a running workload has meanwhile removed the entry, or replaced it by a link or by a file
_EXCHANGED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


class Change(NamedTuple):
    """One line of `vmctl diff`: `A` for added, `C` for changed, `D` for deleted."""

    kind: str
    path: str


def changes(layers: Sequence[Layer], writable: Writable) -> list[Change]:
    """Return the differences from the image, sorted by path; docker-diff(1) shows the same.

    A file is changed if its content, mode, owner, modification time or an attribute differs; a folder is changed if its
    mode, owner or an attribute differs, or if an entry in it is changed. Raises ImageError, OSError.
    """
    with View(layers) as view:
        found = _Comparison(view, writable.folder, _own(view, writable)).kinds()
    for path in list(found):
        while (path := os.path.dirname(path).rstrip("/")) and path not in found:
            found[path] = "C"
    return [Change(kind, path) for path, kind in sorted(found.items(), key=lambda item: os.fsencode(item[0]))]


def own(layers: Sequence[Layer], writable: Writable, *, folders: bool = False) -> frozenset[str]:
    """Return the paths in the writable layer that are not changes: the mount points that the backend made.

    With `folders`, also the folders of the image that are in it, unchanged, because a mount point was made in them.
    They are relative to its folder. Raises ImageError, OSError.
    """
    with View(layers) as view:
        return frozenset(path.lstrip("/") for path in _own(view, writable, folders=folders))


class _Folder(NamedTuple):
    """A folder of the writable layer that is still to be compared."""

    path: str
    added: bool = False  # the image has no folder at this path
    hidden: bool = False  # the image's entries in it are hidden


class _Comparison:
    def __init__(self, view: View, upper: str, left_out: frozenset[str]) -> None:
        self._view = view
        self._upper = upper
        self._left_out = left_out
        self._kinds: dict[str, str] = {}
        self._waiting = [_Folder("")]
        self._opaque = opaque_attribute()

    def kinds(self) -> dict[str, str]:
        """Return path -> kind of each change, without folders in which only an entry is changed."""
        while self._waiting:
            self._look_into(self._waiting.pop())
        return self._kinds

    def _look_into(self, folder: _Folder) -> None:
        below = set() if folder.added else set(self._view.names(folder.path or "/"))
        here = {os.fsencode(entry.name) for entry in _entries(self._upper + folder.path)}
        for name in here:
            path = f"{folder.path}/{os.fsdecode(name)}"
            if path not in self._left_out:
                node = self._view.find(path, follow=False) if name in below else None
                try:
                    self._compare(path, node, hidden=folder.hidden)
                except OSError as error:
                    if error.errno not in _EXCHANGED:
                        raise
        if folder.hidden:
            self._kinds.update({f"{folder.path}/{os.fsdecode(name)}": "D" for name in below - here})

    def _compare(self, path: str, node: Node | None, *, hidden: bool) -> None:
        """Record how the entry of the writable layer at a path differs from the image's entry."""
        status = os.lstat(self._upper + path)
        if _is_whiteout(status):
            if node is not None:
                self._kinds[path] = "D"
        elif not stat.S_ISDIR(status.st_mode):
            if node is None or self._differs(path, node, status):
                self._kinds[path] = "A" if node is None else "C"
        elif node is None or not stat.S_ISDIR(node.attributes.mode):
            self._kinds[path] = "A" if node is None else "C"
            self._waiting.append(_Folder(path, added=True))
        else:
            attributes = _attributes(self._upper + path)
            if not _same_attributes(node, status, attributes):
                self._kinds[path] = "C"
            self._waiting.append(_Folder(path, hidden=hidden or attributes.get(self._opaque) == b"y"))

    def _differs(self, path: str, node: Node, status: os.stat_result) -> bool:
        file = self._upper + path
        if node.attributes.mtime_ns != status.st_mtime_ns or not _same_attributes(node, status, _attributes(file)):
            return True
        if stat.S_ISLNK(status.st_mode):
            return node.target != os.fsencode(os.readlink(file))
        if stat.S_ISREG(status.st_mode):
            return node.size_bytes != status.st_size or not self._same_content(path)
        return node.device != status.st_rdev

    def _same_content(self, path: str) -> bool:
        """Return whether a file has the image's content; a changed file can have the same size and time."""
        with open(self._upper + path, "rb", opener=_open) as file:
            return all(file.read(len(part)) == part for part in self._view.content(path))


def _open(path: str, flags: int) -> int:
    """Open a file, but not a link or a pipe without a writer that a running workload has put in its place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _own(view: View, writable: Writable, *, folders: bool = False) -> frozenset[str]:
    """Return the mount points that the image does not have and that are still empty, and such folders above them.

    With `folders`, also such folders that the image has.
    """
    found: set[str] = set()
    for made in writable.made:
        path = _resolved(view, writable.folder, made)
        while path and _is_unused(view, writable.folder, path, found, folders):
            found.add(path)
            path = os.path.dirname(path).rstrip("/")
    return frozenset(found)


def _is_unused(view: View, upper: str, path: str, left_out: set[str], folders: bool) -> bool:
    """Return whether a path in the upper folder has nothing but mount points."""
    if not _is_empty(upper + path, path, left_out):
        return False
    node = view.find(path, follow=False)
    if node is None or not folders:
        return node is None
    status, xattrs = os.lstat(upper + path), _attributes(upper + path)
    return stat.S_ISDIR(status.st_mode) and opaque_attribute() not in xattrs and _same_attributes(node, status, xattrs)


def _is_empty(file: str, path: str, left_out: set[str]) -> bool:
    """Return whether a file is at the path, or a folder with no entries except those in `left_out`."""
    with suppress(FileNotFoundError):
        status = os.lstat(file)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size == 0
        return all(f"{path}/{entry.name}" in left_out for entry in _entries(file))
    return False


def _resolved(view: View, upper: str, path: str) -> str:
    """Return the path in the instance after following symbolic links, including those that the workload made."""
    waiting, reached = _pieces(path), list[str]()
    for _ in range(LINKS_MAX):
        while waiting:
            name = waiting.pop()
            target = _link(view, upper, "/" + "/".join([*reached, name]))
            if target:
                reached = [] if target.startswith("/") else reached
                waiting += _pieces(target)
                break
            reached = reached[:-1] if name == ".." else [*reached, name]
        else:
            break
    return "".join(f"/{name}" for name in reached)


def _pieces(path: str) -> list[str]:
    return [piece for piece in reversed(path.split("/")) if piece not in ("", ".")]


def _link(view: View, upper: str, path: str) -> str:
    """Return the target of the symbolic link at a path, empty if it is not a symbolic link."""
    with suppress(OSError):
        return os.readlink(upper + path)
    if os.path.lexists(upper + path):
        return ""
    node = view.find(path, follow=False)
    return os.fsdecode(node.target) if node else ""


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:  # the workload is running
        return list(entries)
    return []


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _attributes(file: str) -> dict[str, bytes]:
    return {name: os.getxattr(file, name, follow_symlinks=False) for name in os.listxattr(file, follow_symlinks=False)}


def _same_attributes(node: Node, status: os.stat_result, xattrs: dict[str, bytes]) -> bool:
    known = node.attributes
    if (known.mode, known.uid, known.gid) != (status.st_mode, status.st_uid, status.st_gid):
        return False
    return _visible(known.xattrs) == _visible(xattrs)


def _visible(xattrs: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: value for name, value in xattrs.items() if not name.startswith((*_OF_OVERLAYFS, _OF_THE_HOST))}
