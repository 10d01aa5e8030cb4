"""The headers of a tar: ustar with pax records (pax(1)), GNU's long names when reading (tar(5)).

What is read may come from a hostile instance: every number and every length is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vmctl.errors import VmctlError
from vmctl.named import NamedTuple

FILE, HARD_LINK, SYMLINK, FOLDER = "0", "1", "2", "5"
LABEL = "V"  # GNU's name of the volume: an entry without a file
SPECIAL = {"3": "character device", "4": "block device", "6": "FIFO"}
BLOCK = 512
PART = 1 << 18
END = bytes(2 * BLOCK)
_EXTENDED_BYTES = 1 << 20  # of the names and records of one entry; a path of Linux has at most 4096
_OCTAL_SIZE, _OCTAL_ID = 8**11, 8**7
_SPARSE, _SPARSE_RECORDS = "S", "GNU.sparse."  # their content is a map and data, which would be taken for the file
_GNU = {"L": "path", "K": "linkpath"}


class TarError(VmctlError):
    """A tar that is damaged, cut off, or not one."""


class Entry(NamedTuple):
    """One file, folder or link of a tar; its content follows."""

    name: bytes
    kind: str
    mode: int
    size: int = 0
    target: bytes = b""
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # seconds since the epoch


Read = Callable[[int], bytes]  # up to so many bytes, none at the end
Write = Callable[[bytes], object]


def header(entry: Entry) -> bytes:
    """Return the blocks before the content of an entry."""
    records = b""
    name, target = entry.name + b"/" * (entry.kind == FOLDER and not entry.name.endswith(b"/")), entry.target
    numbers = {"size": entry.size, "uid": entry.uid, "gid": entry.gid, "mtime": entry.mtime}
    for key, text in (("path", name), ("linkpath", target)):
        if len(text) > 100:
            records += _record(key, text)
    for key, number in numbers.items():
        if not 0 <= number < (_OCTAL_ID if key.endswith("id") else _OCTAL_SIZE):
            records += _record(key, str(number).encode())
            numbers[key] = 0
    plain = _block(name[:100], entry.kind, entry.mode, target[:100], **numbers)
    if not records:
        return plain
    return _block(b"pax", "x", 0o644, b"", size=len(records)) + records + bytes(-len(records) % BLOCK) + plain


def padding(size: int) -> bytes:
    """Return the zeros behind a content."""
    return bytes(-size % BLOCK)


def _record(key: str, value: bytes) -> bytes:
    """Return a record `LENGTH KEY=VALUE\\n`, whose length counts its own digits."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    length += len(str(length)) > len(str(len(rest)))
    return str(length).encode() + rest


def _block(
    name: bytes, kind: str, mode: int, target: bytes, *, size: int, uid: int = 0, gid: int = 0, mtime: int = 0
) -> bytes:
    fields = b"%-8s%-8s%-8s%-12s%-12s" % (
        b"%07o\0" % (mode & 0o7777),
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
    )
    head = name.ljust(100, b"\0") + fields
    tail = kind.encode() + target.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\0"
    whole = (head + b" " * 8 + tail).ljust(BLOCK, b"\0")
    return head + b"%06o\0 " % sum(whole) + whole[len(head) + 8 :]


class Reader:
    """Reads the entries of a tar one after the other."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._left = 0  # of the content of the last entry, with its padding
        self.size = 0

    def entries(self) -> Iterator[Entry]:
        """Yield the entries; what the caller has not read of the content of one is skipped. Raises TarError."""
        described: dict[str, bytes] = {}
        while (block := self._exactly(BLOCK, or_end=True)).strip(b"\0"):
            kind, size = chr(block[156] or 0x30), _number(block[124:136])
            if not _is_header(block):
                raise TarError("the tar is damaged, or it is not a tar")
            if kind in ("x", "g", *_GNU):
                if size > _EXTENDED_BYTES:
                    raise TarError("the tar has a name or attributes that are too long")
                data = self._exactly(size + -size % BLOCK)[:size]
                if kind == "x":
                    described.update(_records(data))
                elif kind in _GNU:
                    described[_GNU[kind]] = data.partition(b"\0")[0]
                continue
            if kind == _SPARSE or any(key.startswith(_SPARSE_RECORDS) for key in described):
                raise TarError("the tar has a sparse file in a form of GNU tar", hint="make it without `tar --sparse`")
            entry = _entry(block, kind, size, described)
            described = {}
            self.size, self._left = entry.size, entry.size + -entry.size % BLOCK
            yield entry
            while self._left:
                self._left -= len(self._exactly(min(self._left, PART)))

    def content(self) -> Iterator[bytes]:
        """Yield the content of the last entry."""
        left = self.size
        while left:
            part = self._exactly(min(left, PART))
            left -= len(part)
            self._left -= len(part)
            yield part

    def _exactly(self, length: int, *, or_end: bool = False) -> bytes:
        found = b""
        while len(found) < length and (part := self._read(length - len(found))):
            found += part
        if len(found) < length and not (or_end and not found):
            raise TarError("the tar is cut off")
        return found


def _entry(block: bytes, kind: str, size: int, described: dict[str, bytes]) -> Entry:
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else b""
    name = described.get("path") or (prefix + b"/" if prefix else b"") + _text(block[:100])
    target = described.get("linkpath") or _text(block[157:257])
    size = _decimal(described.get("size"), size)
    kind = FILE if kind in "07" else kind
    return Entry(
        name=name,
        kind=FOLDER if kind == FILE and name.endswith(b"/") else kind,
        mode=_number(block[100:108]) & 0o7777,
        size=size if kind == FILE else 0,
        target=target,
        uid=_decimal(described.get("uid"), _number(block[108:116])),
        gid=_decimal(described.get("gid"), _number(block[116:124])),
        mtime=_decimal(described.get("mtime"), _number(block[136:148])),
    )


def _is_header(block: bytes) -> bool:
    try:
        checksum = int(block[148:156].strip(b" \0") or b"0", 8)
    except ValueError:
        return False
    return checksum == sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _number(field: bytes) -> int:
    """Return an octal number, or one in GNU's base 256. Raises TarError."""
    if field[0] & 0x80:
        number = int.from_bytes(field, "big") & (1 << (8 * len(field) - 1)) - 1
    else:
        try:
            number = int(field.strip(b" \0") or b"0", 8)
        except ValueError:
            number = -1
    if not 0 <= number < 1 << 60:
        raise TarError("the tar is damaged: it has an invalid number")
    return number


def _decimal(text: bytes | None, otherwise: int) -> int:
    """Return the whole part of a number in a record."""
    if text is None:
        return otherwise
    whole = text.partition(b".")[0]
    if not whole.isdigit() or len(whole) > 18:
        raise TarError("the tar is damaged: it has an invalid number")
    return int(whole)


def _records(data: bytes) -> dict[str, bytes]:
    found = {}
    while data:
        length = data.partition(b" ")[0]
        if not length.isdigit() or len(length) > 7 or not len(length) + 2 < int(length) <= len(data):
            raise TarError("the tar is damaged: it has invalid pax records")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode(errors="replace")] = value
        data = data[int(length) :]
    return found


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
