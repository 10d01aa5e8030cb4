"""Reads the partition tables of a disk: GPT (UEFI specification, 5.3), and MBR with logical partitions."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

SECTOR_BYTES = 512
_SECTOR_SIZES = (512, 4096)
_ENTRIES_MAX = 256
_MBR_TABLE, _MBR_ENTRY = 446, struct.Struct("<B3xB3xII")
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
# Discoverable Partitions Specification: root of x86-64, arm64, riscv64
_ROOT_TYPES = {
    UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"),
    UUID("72ec70a6-cf74-40e6-bd49-4bda08e8f224"),
}
_FILE_SYSTEMS = (  # name, offset and magic number: linux/magic.h
    ("xfs", 0, b"XFSB"),
    ("ext4", 1024 + 56, b"\x53\xef"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("squashfs", 0, b"hsqs"),
    ("btrfs", 65536 + 64, b"_BHRfS_M"),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("LVM", 512 + 24, b"LVM2 001"),
)


class Partition(NamedTuple):
    """A part of a disk that may contain a file system."""

    offset: int  # bytes
    size_bytes: int
    is_root: bool  # the partition type is one for a root file system
    kind: str  # type of the file system, as for mount(8); LUKS, LVM; "" if unknown


def of_disk(path: str) -> list[Partition]:
    """Return the partitions of a raw disk, the likeliest root first; without partitions, the whole disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.fstat(fd).st_size
        spans = list(_gpt(fd)) or list(_mbr(fd)) or [(0, size_bytes, False)]
        inside = [span for span in spans if span[0] >= 0 and 0 < span[1] <= size_bytes - span[0]]
        found = [Partition(*span, _file_system(fd, span[0])) for span in inside]
        return sorted(found, key=lambda part: (part.is_root, part.size_bytes), reverse=True)
    finally:
        os.close(fd)


def _gpt(fd: int) -> Iterator[tuple[int, int, bool]]:
    for sector in _SECTOR_SIZES:
        header = _at(fd, 92, sector)
        if len(header) < 92 or not header.startswith(b"EFI PART"):
            continue
        table, count, size = struct.unpack_from("<QII", header, 72)
        if not 128 <= size <= 4096:
            return
        for number in range(min(count, _ENTRIES_MAX)):
            entry = _at(fd, 48, table * sector + number * size)
            if len(entry) == 48 and any(entry[:16]):
                first, last = struct.unpack_from("<QQ", entry, 32)
                yield first * sector, (last - first + 1) * sector, UUID(bytes_le=entry[:16]) in _ROOT_TYPES
        return


def _mbr(fd: int) -> Iterator[tuple[int, int, bool]]:
    for kind, first, count in _table(fd, 0):
        if kind in _EXTENDED:
            yield from _logical(fd, first)
        elif kind != _PROTECTIVE:
            yield first * SECTOR_BYTES, count * SECTOR_BYTES, False


def _logical(fd: int, extended: int) -> Iterator[tuple[int, int, bool]]:
    """Yield logical partitions. Each table has one, and the next table's offset from the extended partition."""
    here = extended
    for _ in range(_ENTRIES_MAX):  # a chain of tables may contain a loop
        following = 0
        for kind, first, count in _table(fd, here):
            if kind in _EXTENDED:
                following = extended + first
            else:
                yield (here + first) * SECTOR_BYTES, count * SECTOR_BYTES, False
        if not following:
            return
        here = following


def _table(fd: int, sector: int) -> list[tuple[int, int, int]]:
    """Return (type, first sector, number of sectors) of the entries in use."""
    data = _at(fd, SECTOR_BYTES, sector * SECTOR_BYTES)
    if data[510:512] != b"\x55\xaa":
        return []
    entries = [_MBR_ENTRY.unpack_from(data, _MBR_TABLE + 16 * number) for number in range(4)]
    if any(status not in (0, 0x80) for status, *_ in entries):
        return []  # not a partition table but the boot sector of a file system
    return [(kind, first, count) for _, kind, first, count in entries if kind and count]


def _file_system(fd: int, offset: int) -> str:
    return next((kind for kind, at, magic in _FILE_SYSTEMS if _at(fd, len(magic), offset + at) == magic), "")


def _at(fd: int, length: int, offset: int) -> bytes:
    """Return the bytes at an offset, none for an offset that no file can have."""
    return os.pread(fd, length, offset) if offset < 1 << 62 else b""
