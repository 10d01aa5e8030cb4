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
_EFI_TYPES = {UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), 0xEF}  # EFI system partition, of GPT and of MBR
_FILE_SYSTEMS = (  # name, offset and magic number: linux/magic.h
    ("xfs", 0, b"XFSB"),
    ("ext4", 1024 + 56, b"\x53\xef"),
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("squashfs", 0, b"hsqs"),
    ("btrfs", 65536 + 64, b"_BHRfS_M"),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("LVM", 512 + 24, b"LVM2 001"),
)


_Span = tuple[int, int, UUID | int]  # offset and size in bytes, and the type by GPT or MBR


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
        spans = _spans(fd) or [(0, size_bytes, 0)]
        inside = [span for span in spans if span[0] >= 0 and 0 < span[1] <= size_bytes - span[0]]
        found = [Partition(at, size, kind in _ROOT_TYPES, _file_system(fd, at)) for at, size, kind in inside]
        return sorted(found, key=lambda part: (part.is_root, part.size_bytes), reverse=True)
    finally:
        os.close(fd)


def least_bytes(path: str) -> int:
    """Return the size that a raw disk must have for its partitions, or for its file system if it has none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        spans = _spans(fd)
        return max((at + size for at, size, _ in spans), default=0) if spans else _file_system_bytes(fd)
    finally:
        os.close(fd)


def has_boot_code(head: bytes) -> bool:
    """Return whether the first sector of a disk has what a BIOS executes."""
    return head[510:512] == b"\x55\xaa" and any(head[:440])


def has_efi(path: str) -> bool:
    """Return whether a raw disk has a partition with a boot loader for EFI."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return any(kind in _EFI_TYPES for _, _, kind in _spans(fd))
    finally:
        os.close(fd)


def _spans(fd: int) -> list[_Span]:
    return list(_gpt(fd)) or list(_mbr(fd))


def _file_system_bytes(fd: int) -> int:
    """Return the size of the file system on a whole disk as its superblock has it, 0 if it is not known."""
    kind = _file_system(fd, 0)
    if kind == "ext4":  # Documentation/filesystems/ext4: s_blocks_count_lo, s_log_block_size, s_blocks_count_hi
        block = _at(fd, 1024, 1024).ljust(1024, b"\0")
        blocks, shift = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 24)[0]
        wide = struct.unpack_from("<I", block, 96)[0] & 0x80  # INCOMPAT_64BIT
        high = struct.unpack_from("<I", block, 0x150)[0] if wide else 0
        return int((blocks + (high << 32)) << (10 + shift)) if shift <= 6 else 0
    if kind == "xfs":  # sb_blocksize, sb_dblocks
        size, blocks = struct.unpack_from(">IQ", _at(fd, 16, 0).ljust(16, b"\0"), 4)
        return int(size * blocks)
    if kind == "btrfs":  # total_bytes
        return int(struct.unpack("<Q", _at(fd, 8, 65536 + 0x70).ljust(8, b"\0"))[0])
    if kind == "squashfs":  # bytes_used
        return int(struct.unpack("<Q", _at(fd, 8, 40).ljust(8, b"\0"))[0])
    return 0


def _gpt(fd: int) -> Iterator[_Span]:
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
                yield first * sector, (last - first + 1) * sector, UUID(bytes_le=entry[:16])
        return


def _mbr(fd: int) -> Iterator[_Span]:
    for kind, first, count in _table(fd, 0):
        if kind in _EXTENDED:
            yield from _logical(fd, first)
        elif kind != _PROTECTIVE:
            yield first * SECTOR_BYTES, count * SECTOR_BYTES, kind


def _logical(fd: int, extended: int) -> Iterator[_Span]:
    """Yield logical partitions. Each table has one, and the next table's offset from the extended partition."""
    here = extended
    for _ in range(_ENTRIES_MAX):  # a chain of tables may contain a loop
        following = 0
        for kind, first, count in _table(fd, here):
            if kind in _EXTENDED:
                following = extended + first
            else:
                yield (here + first) * SECTOR_BYTES, count * SECTOR_BYTES, kind
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
