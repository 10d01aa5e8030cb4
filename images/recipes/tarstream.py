"""Tars written and read piece by piece: an entry has the attributes of a file, and a way to read its content."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from images.layer import tarball
from images.layer.headers import header
from images.layer.lookup import Node
from vmctl.errors import VmctlError


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
        yield header(entry.path or ".", entry.node, entry.hard_link)
        if stat.S_ISREG(entry.node.attributes.mode) and not entry.hard_link:
            yield from _padded(entry)
    yield bytes(2 * tarfile.BLOCKSIZE)


def node(info: tarfile.TarInfo) -> Node | None:
    """Return the attributes of an entry that was read; None for a hard link, and for an entry that is not a file.

    Raises ImageError.
    """
    kind = stat.S_IFREG if info.isreg() else tarball.KINDS.get(info.type)
    if kind is None:
        return None
    attributes = tarball.attributes_of(info, kind)
    device = tarball.device_number(info) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    target = os.fsencode(info.linkname) if info.issym() else b""
    return Node(attributes, info.size if info.isreg() else 0, 1, device, target)


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
