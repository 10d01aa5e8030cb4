"""Reads the headers of a tar and skips the contents: enough to find the files of an archive.

Reads both formats in use, pax(1) and GNU; see tar(5).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from images.store.image import ImageError

REGULAR, HARD_LINK, SYMLINK = "0", "1", "2"
_EXTENSIONS = {"x": "", "g": "", "L": "path", "K": "linkpath"}  # GNU's long names -> keywords of pax records
_WITHOUT_CONTENT = "123456"
HEADER_BYTES = _BLOCK = 512
_EXTENSION_BYTES_MAX = 1 << 20  # size of a long name or a set of pax records
_PART = 1 << 20


class Member(NamedTuple):
    """One entry of a tar."""

    name: str
    kind: str
    offset: int
    size_bytes: int
    target: str  # target of a link


def members(file: BinaryIO, where: str) -> Iterator[Member]:
    """Yield the entries of a tar, contents skipped. Raises ImageError if it is damaged or not a tar."""
    described: dict[str, str] = {}  # pax records and GNU long names for the next entry
    position = 0
    while (header := _exactly(file, _BLOCK, where, or_end=True)).strip(b"\0"):
        if not is_header(header):
            reason = "is damaged: an entry has a wrong checksum" if position else "is not a tar archive"
            raise ImageError(f"{where} {reason}")
        kind, length = chr(header[156] or 0x30), _number(header[124:136], where)
        position += _BLOCK
        if kind in _EXTENSIONS:
            if length > _EXTENSION_BYTES_MAX:
                raise ImageError(f"{where} has a name or attributes longer than {_EXTENSION_BYTES_MAX} bytes")
            data = _exactly(file, _padded(length), where)[:length]
            described.update(_pax(data, where) if kind == "x" else {_EXTENSIONS[kind]: _text(data)})
            position += _padded(length)
            continue
        length = _pax_size(described, length, where)
        name = described.get("path") or _header_name(header)
        target = described.get("linkpath") or _text(header[157:257])
        yield Member(clean(name), REGULAR if kind in "07" else kind, position, length, target)
        described = {}
        position += _skip(file, position, _padded(length) if kind not in _WITHOUT_CONTENT else 0, where)
    if not position:
        raise ImageError(f"{where} is empty or not a tar archive")


def _skip(file: BinaryIO, position: int, length: int, where: str) -> int:
    if file.seekable():
        file.seek(position + length)
        return length
    left = length
    while left:
        data = file.read(min(left, _PART))
        if not data:
            raise ImageError(f"{where} is truncated")
        left -= len(data)
    return length


def _exactly(file: BinaryIO, length: int, where: str, *, or_end: bool = False) -> bytes:
    data = file.read(length)
    if len(data) < length and not (or_end and not data):
        raise ImageError(f"{where} is truncated or not a tar archive")
    return data


def is_header(header: bytes) -> bool:
    """Return whether a block has a valid header checksum: the sum of its bytes, the checksum field as spaces."""
    try:
        checksum = int(header[148:156].strip(b" \0") or b"0", 8)
    except ValueError:
        return False
    return checksum == sum(header) - sum(header[148:156]) + 8 * ord(" ")


def _number(field: bytes, where: str) -> int:
    if field[0] & 0x80:  # GNU: base 256
        number = int.from_bytes(field, "big") & (1 << (8 * len(field) - 1)) - 1
    else:
        try:
            number = int(field.strip(b" \0") or b"0", 8)
        except ValueError:
            number = -1
    if not 0 <= number < 1 << 62:
        raise ImageError(f"{where} is damaged: an entry has an invalid size")
    return number


def _pax(data: bytes, where: str) -> dict[str, str]:
    """Return the records of a pax header, a sequence of `LENGTH KEY=VALUE\\n`."""
    records = {}
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 7 or not len(length) + 2 < int(length) <= len(data):
            raise ImageError(f"{where} is damaged: an entry has invalid pax records")
        key, _, value = data[len(length) + 1 : int(length) - 1].decode("utf-8", "surrogateescape").partition("=")
        records[key] = value
        data = data[int(length) :]
    return records


def _pax_size(records: dict[str, str], length: int, where: str) -> int:
    """Return the length of a content; a length above 8 GiB is in a pax record."""
    size = records.get("size", str(length))
    if not (size.isdecimal() and len(size) < 19):
        raise ImageError(f"{where} is damaged: an entry has an invalid size")
    return int(size)


def _header_name(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return posixpath.join(prefix, _text(header[:100]))


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def clean(name: str) -> str:
    """Return a normalised name, relative to the root of the archive."""
    return posixpath.normpath(name).lstrip("/")
