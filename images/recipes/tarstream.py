"""Tars written and read piece by piece: an entry has the attributes of a file, and a way to read its content."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import NamedTuple

from images.layer import tarball
from images.layer.lookup import Node
from images.layer.tarball import XATTR
from images.layer.tree import Attributes
from vmctl.errors import VmctlError

_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_TYPES = {kind: letter for letter, kind in _KINDS.items()}


def _nothing() -> Iterator[bytes]:
    return iter(())


class Entry(NamedTuple):
    """Something at a path, which is relative to the root; '' is the root itself."""

    path: str
    node: Node
    content: Callable[[], Iterator[bytes]] = _nothing
    hard_link: str = ""  # the path of the entry whose other name it is


def tar(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the tar of some entries, in their order. Raises VmctlError if a file's length has changed."""
    for entry in entries:
        yield header(entry)
        if stat.S_ISREG(entry.node.attributes.mode) and not entry.hard_link:
            yield from _padded(entry)
    yield bytes(2 * tarfile.BLOCKSIZE)


def header(entry: Entry) -> bytes:
    """Return the headers of an entry, in the pax form."""
    attributes = entry.node.attributes
    info = tarfile.TarInfo(entry.path or ".")
    info.type = _TYPES[stat.S_IFMT(attributes.mode)]
    info.mode = stat.S_IMODE(attributes.mode)
    info.uid, info.gid = attributes.uid, attributes.gid
    info.mtime = attributes.mtime_ns // 10**9
    if entry.hard_link:
        info.type, info.linkname = tarfile.LNKTYPE, entry.hard_link
    elif info.isreg():
        info.size = entry.node.size_bytes
    elif info.issym():
        info.linkname = os.fsdecode(entry.node.target)
    elif info.ischr() or info.isblk():
        info.devmajor, info.devminor = os.major(entry.node.device), os.minor(entry.node.device)
    info.pax_headers = _records(attributes)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def node(info: tarfile.TarInfo) -> Node | None:
    """Return the attributes of an entry that was read; None for a hard link, and for an entry that is not a file.

    Raises ImageError.
    """
    kind = stat.S_IFREG if info.isreg() else _KINDS.get(info.type)
    if kind is None:
        return None
    attributes = tarball.attributes_of(info, kind)
    device = tarball.device_number(info) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    target = os.fsencode(info.linkname) if info.issym() else b""
    return Node(attributes, info.size if info.isreg() else 0, 1, device, target)


def _records(attributes: Attributes) -> dict[str, str]:
    records = {
        XATTR + name: value.decode("utf-8", "surrogateescape")
        for name, value in sorted(attributes.xattrs.items())
        if not name.startswith("trusted.overlay.")
    }
    if attributes.mtime_ns % 10**9:
        records["mtime"] = f"{Decimal(attributes.mtime_ns).scaleb(-9):f}"
    return records


def _padded(entry: Entry) -> Iterator[bytes]:
    size = entry.node.size_bytes
    written = 0
    for piece in entry.content():
        written += len(piece)
        if written > size:
            break
        yield piece
    if written != size:
        raise VmctlError(f"the file for /{entry.path} changed while it was read", hint="build again")
    if padding := -size % tarfile.BLOCKSIZE:
        yield bytes(padding)
