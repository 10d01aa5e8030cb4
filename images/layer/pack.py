"""Makes the tar of a layer from a folder of the host, in a fixed order and form: the same folder gives the same digest.

This is the reverse of images/layer/tree.py: the marks of overlayfs in an upper folder become the whiteouts of a layer.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Container, Iterator
from decimal import Decimal
from typing import BinaryIO

from images.layer.readers import from_iterator
from images.layer.tarball import XATTR
from images.layer.tree import OPAQUE_MARKER, WHITEOUT_PREFIX, opaque_attribute

_PART = 1 << 20
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
# the marks of overlayfs, and the host's SELinux policy
_LEFT_OUT = ("trusted.overlay.", "user.overlay.", "security.selinux")


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
            yield _header(_marker(os.path.dirname(name), WHITEOUT_PREFIX.decode() + os.path.basename(name)))
            continue
        info = _info(path, name, status, newest_ns)
        if info.isreg() and status.st_nlink > 1:
            first = names.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        yield _header(info)
        if info.isreg():
            yield from _content(path, info.size)
        if overlay and info.isdir() and _xattr(path, opaque) == b"y":
            yield _header(_marker(name, OPAQUE_MARKER.decode()))
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


def _info(path: str, name: str, status: os.stat_result, newest_ns: int | None) -> tarfile.TarInfo:
    """Return the header. Root keeps the owners; any other user owns every file anyway, so root becomes the owner."""
    info = tarfile.TarInfo(name)
    info.type = _TYPES[stat.S_IFMT(status.st_mode)]
    info.mode = stat.S_IMODE(status.st_mode)
    if os.geteuid() == 0:
        info.uid, info.gid = status.st_uid, status.st_gid
    mtime_ns = status.st_mtime_ns if newest_ns is None else min(status.st_mtime_ns, newest_ns)
    info.mtime = mtime_ns // 10**9
    records: dict[str, str] = {}
    if mtime_ns % 10**9:
        records["mtime"] = format(Decimal(mtime_ns).scaleb(-9), "f")
    if info.isreg():
        info.size = status.st_size
    elif info.issym():
        info.linkname = os.readlink(path)
    elif info.ischr() or info.isblk():
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    for attribute in sorted(_listxattr(path)):
        if not attribute.startswith(_LEFT_OUT):
            value = _xattr(path, attribute) or b""
            records[XATTR + attribute] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = records
    return info


def _marker(folder: str, name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.path.join(folder, name))
    info.mode = 0
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


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
