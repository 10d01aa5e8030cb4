"""Makes the tar of a layer from a folder of the host, in a fixed order and form: the same folder gives the same digest.

This is the reverse of images/layer/tree.py: the marks of overlayfs in an upper folder become the whiteouts of a layer.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Container, Iterator
from typing import BinaryIO

from images.layer.headers import header
from images.layer.lookup import Node
from images.layer.readers import from_iterator
from images.layer.tree import OPAQUE_MARKER, WHITEOUT_PREFIX, Attributes, opaque_attribute

_PART = 1 << 20


def open_folder(
    folder: str, *, overlay: bool = False, newest_ns: int | None = None, skip: Container[str] = ()
) -> BinaryIO:
    """Return the tar of a folder, produced while it is read. See layers.from_folder. Reading it raises OSError."""
    return from_iterator(_tar(folder, overlay, newest_ns, skip))


def _tar(folder: str, overlay: bool, newest_ns: int | None, skip: Container[str]) -> Iterator[bytes]:
    names: dict[tuple[int, int], str] = {}  # inode -> the first name, for hard links
    opaque = opaque_attribute()
    for path in _walk(folder, skip):
        status = os.lstat(path)
        name = os.path.relpath(path, folder)
        if stat.S_ISSOCK(status.st_mode):
            continue  # belongs to a running program, and tar has no entry type for it
        if overlay and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            yield _marker(os.path.dirname(name), WHITEOUT_PREFIX.decode() + os.path.basename(name))
            continue
        first = name
        is_file = stat.S_ISREG(status.st_mode)
        if is_file and status.st_nlink > 1:
            first = names.setdefault((status.st_dev, status.st_ino), name)
        node = _node(path, status, newest_ns)
        yield header(name, node, "" if first == name else first, is_time_first=True)
        if is_file and first == name:
            yield from _content(path, status.st_size)
        if overlay and stat.S_ISDIR(status.st_mode) and node.attributes.xattrs.get(opaque) == b"y":
            yield _marker(name, OPAQUE_MARKER.decode())
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walk(folder: str, skip: Container[str]) -> Iterator[str]:
    """Yield the folder and all paths below it, a folder before its content, sorted by the names' bytes."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if os.path.relpath(path, folder) in skip:
            continue
        yield path
        if os.path.isdir(path) and not os.path.islink(path):
            waiting.extend(os.path.join(path, name) for name in sorted(os.listdir(path), key=os.fsencode, reverse=True))


def _node(path: str, status: os.stat_result, newest_ns: int | None) -> Node:
    """Return the file at a path. Root keeps the owners; any other user owns every file anyway, so root becomes it."""
    mtime_ns = status.st_mtime_ns if newest_ns is None else min(status.st_mtime_ns, newest_ns)
    xattrs = {name: _xattr(path, name) or b"" for name in _listxattr(path)}
    owners = (status.st_uid, status.st_gid) if os.geteuid() == 0 else (0, 0)
    target = os.fsencode(os.readlink(path)) if stat.S_ISLNK(status.st_mode) else b""
    attributes = Attributes(status.st_mode, *owners, mtime_ns, xattrs)
    return Node(attributes, status.st_size, status.st_nlink, status.st_rdev, target)


def _marker(folder: str, name: str) -> bytes:
    return header(os.path.join(folder, name), Node(Attributes(stat.S_IFREG), 0, 1))


def _content(path: str, size: int) -> Iterator[bytes]:
    """Yield a file's padded content: exactly `size` bytes, even if the file grows or shrinks meanwhile."""
    left = size
    # the file may have been replaced meanwhile: do not follow a link, do not wait for a FIFO
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as file:
        while left:
            data = file.read(min(_PART, left)) or bytes(min(_PART, left))
            left -= len(data)
            yield data
    if padding := -size % tarfile.BLOCKSIZE:
        yield bytes(padding)


def _listxattr(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def _xattr(path: str, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        return None
