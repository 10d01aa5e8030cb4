"""A layer's tar, read in one pass into a tree of names and an EROFS file of contents.

The standard library reads the tar itself (pax, GNU long names and sparse files, numbers of any size: tar(5)). For the
content of a layer's tar see layer.md of the OCI image specification.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from decimal import Decimal
from typing import IO, cast

from images.layer.erofs import Extents, Writer
from images.layer.tarindex import Recorder
from images.layer.tree import Attributes, Leaf, Tree
from images.store.image import ImageError
from vmctl.spec.units import format_size

ENTRIES_MAX = 2_000_000
SIZE_MAX_BYTES = 1 << 43  # of a file; 32-bit block numbers reach twice as far
XATTR = "SCHILY.xattr."  # prefix of pax records, as GNU tar, Go and libarchive write them
_HOST_POLICY = "security.selinux"  # belongs to the host, not to the image
_OVERLAY = ("trusted.overlay.", "user.overlay.")  # marks that would change what overlayfs shows
_YEAR_10000_NS = 253_402_300_800 * 10**9
KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.DIRTYPE: stat.S_IFDIR,
}


def store_entries(source: Recorder, tree: Tree, writer: Writer) -> None:
    """Add every entry of a tar to the tree, and its content to the EROFS file.

    Raises ImageError if the tar is damaged or not allowed as a layer.
    """
    for count, info in enumerate(_entries(source)):
        if count >= ENTRIES_MAX:
            raise ImageError(f"the layer has more than {ENTRIES_MAX} entries")
        try:
            _store(info, source, tree, writer)
        except ImageError as error:
            if info.name in str(error):
                raise
            raise ImageError(f"{error}: {info.name[:200]!r}", hint=error.hint) from None
    source.finish()


def _entries(source: Recorder) -> Iterator[tarfile.TarInfo]:
    """Yield the headers. The caller reads an entry's content from the source, or leaves it unread."""
    try:
        # not "r|", which reads ahead and would mix headers and contents
        with tarfile.open(
            fileobj=cast(IO[bytes], source), mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else the list would grow with every entry
                yield info
                _skip(source, tar.offset - source.tell())
    except tarfile.TarError as error:
        if source.size_bytes == 0:
            return  # an empty tar, which some builders write for a layer without files
        raise ImageError(f"the tar is damaged near byte {source.size_bytes}: {error}") from None
    # the library does not expect damaged numbers in pax records and sparse maps, nor a chain of many extended headers
    except (ArithmeticError, LookupError, ValueError, RecursionError) as error:
        raise ImageError(f"the tar is damaged near byte {source.size_bytes}: {type(error).__name__}") from None


def _skip(source: Recorder, length: int) -> None:
    """Read up to the next header."""
    if length < 0:
        raise ImageError(f"the tar is damaged near byte {source.size_bytes}: an entry has an invalid size")
    while length > 0:
        part = min(length, 1 << 20)
        if len(source.read(part)) < part:
            raise ImageError(f"the tar ends in the middle of an entry, after {source.size_bytes} bytes")
        length -= part


def _store(info: tarfile.TarInfo, source: Recorder, tree: Tree, writer: Writer) -> None:
    path = _bytes(info.name)
    if info.size < 0:
        raise ImageError("an entry has a negative size")
    if tree.add_marker(path):
        return
    if info.islnk():
        tree.add_link(path, _bytes(info.linkname))
    elif info.isdir():
        tree.add_folder(path, attributes_of(info, stat.S_IFDIR))
    elif info.isreg():
        tree.add_leaf(path, _regular(info, source, writer))
    elif info.type in KINDS:
        tree.add_leaf(path, _special(info, writer))
    elif info.type.isupper():  # a vendor's extension, such as GNU's volume label; POSIX treats other types as files
        return
    else:
        raise ImageError(f"an entry has the unknown type {info.type!r}")


def _regular(info: tarfile.TarInfo, source: Recorder, writer: Writer) -> Leaf:
    attributes = attributes_of(info, stat.S_IFREG)
    source.check_limit(info.size)
    if info.size > SIZE_MAX_BYTES:
        raise ImageError(f"a file is larger than the maximum of {format_size(SIZE_MAX_BYTES)}")
    if info.sparse is None:
        number, extents = writer.regular(attributes, info.size, source.read_content)
    else:
        pieces = [piece for piece in cast(list[tuple[int, int]], info.sparse) if piece[1]]
        sparse = _SparseContent(source, pieces, info.size)
        number, extents = writer.regular(attributes, info.size, sparse.read)
        extents = [extent for offset, length in pieces for extent in _sub_extents(extents, offset, length)]
    source.record_content(extents)
    return Leaf(number, stat.S_IFREG)


def _special(info: tarfile.TarInfo, writer: Writer) -> Leaf:
    kind = KINDS[info.type]
    attributes, target = attributes_of(info, kind), _bytes(info.linkname)
    if kind == stat.S_IFLNK:
        attributes = attributes._replace(mode=stat.S_IFLNK | 0o777)  # a link's mode is always 0777: symlink(7)
        if not target or b"\0" in target:
            raise ImageError("a symbolic link has an invalid target")
        return Leaf(writer.other(attributes, target=target), kind, target)
    device = 0
    if kind != stat.S_IFIFO:
        device = device_number(info)
        if kind == stat.S_IFCHR and device == 0:
            raise ImageError("the layer has a character device 0:0, which marks a deleted file in overlayfs")
    return Leaf(writer.other(attributes, device=device), kind)


def device_number(info: tarfile.TarInfo) -> int:
    """Return the number of a device in a tar. Raises ImageError."""
    if not (0 <= info.devmajor < 1 << 12 and 0 <= info.devminor < 1 << 20):
        raise ImageError("a device has an invalid number")
    return os.makedev(info.devmajor, info.devminor)


def attributes_of(info: tarfile.TarInfo, kind: int) -> Attributes:
    """Return the attributes of an entry that was read. Raises ImageError for a value that no file can have."""
    if not (0 <= info.uid < 1 << 32 and 0 <= info.gid < 1 << 32):
        raise ImageError("an entry has an invalid owner")
    xattrs = {
        name.removeprefix(XATTR): _bytes(value)
        for name, value in info.pax_headers.items()
        if name.startswith(XATTR) and name != XATTR + _HOST_POLICY
    }
    if names := [name for name in xattrs if name.startswith(_OVERLAY)]:
        raise ImageError(f"an entry has the attribute {names[0]}, which is reserved for overlayfs")
    return Attributes(kind | info.mode & 0o7777, info.uid, info.gid, _mtime_ns(info), xattrs)


def _mtime_ns(info: tarfile.TarInfo) -> int:
    """Return the time of the last change, exactly: the library's float would lose the last digits."""
    try:
        stated = info.pax_headers.get("mtime")
        seconds = Decimal(stated if stated is not None else int(info.mtime))
        # compared before it is converted: 1e900000 has 900,000 digits
        mtime_ns = int(seconds * 10**9) if abs(seconds) < _YEAR_10000_NS else _YEAR_10000_NS
    except (ArithmeticError, ValueError):
        mtime_ns = _YEAR_10000_NS
    if not -(1 << 62) < mtime_ns < _YEAR_10000_NS:
        raise ImageError("an entry has an invalid time")
    return mtime_ns


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _SparseContent:
    """The content of a sparse file of GNU tar, holes included: the archive contains only the data between them."""

    def __init__(self, source: Recorder, pieces: list[tuple[int, int]], size_bytes: int) -> None:
        position = 0
        for offset, length in pieces:
            if offset < position or length < 0 or offset + length > size_bytes:
                raise ImageError("a sparse file has an invalid map of its holes")
            position = offset + length
        self._source = source
        self._pieces = iter([*pieces, (size_bytes, 0)])
        self._position = 0
        self._offset, self._left = next(self._pieces)

    def read(self, length: int) -> bytes:
        """Return the next bytes of the whole file."""
        data = b""
        while len(data) < length:
            missing = length - len(data)
            if self._position < self._offset:
                data += bytes(gap := min(missing, self._offset - self._position))
                self._position += gap
            elif self._left:
                part = self._source.read_content(min(missing, self._left))
                data += part
                self._left -= len(part)
                self._offset += len(part)
                self._position += len(part)
            else:
                self._offset, self._left = next(self._pieces)
        return data


def _sub_extents(extents: Extents, offset: int, length: int) -> Extents:
    """Return the extents of a part of a content."""
    found, position = [], 0
    for place, size in extents:
        start, end = max(position, offset), min(position + size, offset + length)
        if start < end:
            found.append((-1 if place < 0 else place + start - position, end - start))
        position += size
    return found
