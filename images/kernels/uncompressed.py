"""The uncompressed kernel that a bzImage contains, for QEMU to load directly (PVH): no guest has to decompress it.

The bzImage has the compressed kernel as its payload (Linux: Documentation/arch/x86/boot.rst). It is taken out once per
kernel and used until the kernel changes; all guests share the file. QEMU needs an entry point in an ELF note (Xen:
docs/misc/pvh.pandoc, XEN_ELFNOTE_PHYS32_ENTRY). Without one, or if the payload is compressed in another way, the
guest boots the bzImage.

The decompressor in a bzImage is also what moves the kernel to a random address (KASLR): here it stays where it was
linked to.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

from images.kernels.kernel import Kernel
from images.layer import compression
from images.store.image import ImageError
from vmctl import paths
from vmctl.linux import filetree, lz4
from vmctl.linux.filetree import is_being_written, replacing

NAME = "vmlinux"  # of the folder in the cache
_SUFFIX = ".elf"
MOST_BYTES = 256 << 20  # four times Debian's largest kernel: an image may be hostile
_SETUP_SECTS, _MAGIC, _VERSION, _PAYLOAD = 0x1F1, 0x202, 0x206, 0x248
_LEAST_VERSION = 0x0208  # of the header, with the place of the payload
_HEADER_BYTES = 0x250
_LZ4_LEGACY, _LZMA = b"\x02\x21\x4c\x18", b"\x5d\0\0"
_LZ4_BLOCK_BYTES = 8 << 20
_PART = 1 << 16
_PT_LOAD, _PT_NOTE, _NOTE_ENTRY, _OWNER = 1, 4, 18, b"Xen\0"
_X86_64, _MOST_HEADERS, _MOST_NOTES_BYTES = 62, 64, 1 << 20


def image(kernel: Kernel) -> str:
    """Return the path of the ELF file with the uncompressed kernel, or else that of the kernel's image.

    The file is written if it is missing. An empty one is kept for an image that contains no kernel of this form.
    """
    try:
        path = _path(kernel)
        if not os.path.exists(path) and not _extract(kernel.vmlinuz, path):
            return kernel.vmlinuz
        return path if os.path.getsize(path) else kernel.vmlinuz
    except OSError:  # a full disk: this file is only for speed
        return kernel.vmlinuz


def stale(kernels: Iterable[Kernel]) -> list[str]:
    """Return the files that none of the kernels uses."""
    try:
        names = os.listdir(_folder())
    except FileNotFoundError:
        return []
    kept = set()
    for kernel in kernels:
        with suppress(OSError):
            kept.add(os.path.basename(_path(kernel)))
    stale = (name for name in names if name not in kept and not is_being_written(name))
    return sorted(os.path.join(_folder(), name) for name in stale)


def is_elf(path: str) -> bool:
    """Return whether a kernel's image is an uncompressed one."""
    with open(filetree.open_file(path), "rb") as file:
        return file.read(4) == b"\x7fELF"


def _path(kernel: Kernel) -> str:
    """Return the path of the ELF file; it changes with the kernel's image."""
    status = os.stat(kernel.vmlinuz)
    state = repr((os.path.realpath(kernel.vmlinuz), status.st_ino, status.st_size, status.st_mtime_ns))
    return os.path.join(_folder(), f"{kernel.release}-{hashlib.sha256(state.encode()).hexdigest()[:16]}{_SUFFIX}")


def _folder() -> str:
    return os.path.join(paths.cache_root(), NAME)


def _extract(vmlinuz: str, path: str) -> bool:
    """Write the ELF file whole or not at all, an empty one if the content is not what QEMU can load.

    Return False if this host cannot find out: it may lack a library. Raises OSError.
    """
    with open(filetree.open_file(vmlinuz), "rb") as file:
        pieces = _payload(file)
        if pieces is None:
            return False
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path, durable=True) as temporary:
            with open(temporary, "wb") as target:
                try:
                    _write_sparse(target, pieces)
                except (ImageError, EOFError, ValueError, struct.error):
                    target.truncate(0)
            if not _has_entry(temporary):
                os.truncate(temporary, 0)
    return True


def _payload(file: BinaryIO) -> Iterator[bytes] | None:
    """Return the pieces of the decompressed payload; None if it has no form that can be decompressed here."""
    head = file.read(_HEADER_BYTES)
    if head[_MAGIC : _MAGIC + 4] != b"HdrS" or len(head) < _HEADER_BYTES:
        return None
    (version,) = struct.unpack_from("<H", head, _VERSION)
    offset, length = struct.unpack_from("<II", head, _PAYLOAD)
    if version < _LEAST_VERSION or not 8 < length <= MOST_BYTES:
        return None
    file.seek(((head[_SETUP_SECTS] or 4) + 1) * 512 + offset)
    packed = file.read(length)
    if len(packed) < length:
        return None
    (size_bytes,) = struct.unpack_from("<I", packed, length - 4)  # the build of the kernel appends it; gzip ends so
    if size_bytes > MOST_BYTES:
        return None
    if packed.startswith(_LZ4_LEGACY):
        library = lz4.load()
        return _unpacked_lz4(library, packed[4:-4]) if library else None
    if packed.startswith(_LZMA):
        return _unpacked_lzma(packed)
    if compression.recognise(packed[: compression.HEAD_BYTES]):
        return _whole(packed, size_bytes)
    return None


def _unpacked_lz4(library: lz4.Library, packed: bytes) -> Iterator[bytes]:
    """Yield the blocks of a file in lz4's legacy form: each has its length before it. Raises ValueError."""
    place, total = 0, 0
    while place < len(packed):
        (length,) = struct.unpack_from("<I", packed, place)
        block = packed[place + 4 : place + 4 + length]
        if len(block) < length:
            raise ValueError("a block is cut off")
        content = lz4.decompressed(library, block, _LZ4_BLOCK_BYTES)
        place, total = place + 4 + length, total + len(content)
        if total > MOST_BYTES:
            raise ValueError("it is too large")
        yield content


def _unpacked_lzma(packed: bytes) -> Iterator[bytes]:
    """Yield the content of a file in the form of lzma(1). Raises ValueError."""
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=compression.MEMORY_BYTES_MAX)
    try:
        content = decoder.decompress(packed, MOST_BYTES)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from None
    yield content


def _whole(packed: bytes, size_bytes: int) -> Iterator[bytes]:
    """Yield the first `size_bytes` of what a compressed stream contains; what follows the stream is not read."""
    from io import BytesIO

    content = compression.plain(BytesIO(packed), "the kernel")
    while size_bytes > 0:
        piece = content.read(min(size_bytes, 1 << 20))
        if not piece:
            raise EOFError("the kernel is cut off")
        size_bytes -= len(piece)
        yield piece


def _write_sparse(target: BinaryIO, pieces: Iterator[bytes]) -> None:
    """Write the pieces with holes in place of zeros: a fifth of a kernel is room for its variables."""
    size_bytes = 0
    for piece in pieces:
        size_bytes += len(piece)
        for start in range(0, len(piece), _PART):
            part = piece[start : start + _PART]
            if part.count(0) == len(part):
                target.seek(len(part), os.SEEK_CUR)
            else:
                target.write(part)
    target.truncate(size_bytes)


def _has_entry(path: str) -> bool:
    """Return whether a file is a whole kernel for x86-64 with the note that QEMU needs: elf(5)."""
    size_bytes, found = os.path.getsize(path), False
    with open(path, "rb") as file:
        for kind, offset, length in _segments(file):
            if kind == _PT_LOAD and offset + length > size_bytes:
                return False
            if kind == _PT_NOTE and offset < size_bytes and length <= _MOST_NOTES_BYTES:
                file.seek(offset)
                found = found or _is_among(file.read(length))
    return found


def _segments(file: BinaryIO) -> list[tuple[int, int, int]]:
    """Return kind, offset and length of each segment; [] for any file but a kernel for x86-64."""
    head = file.read(64)
    if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
        return []
    (machine,), (start,) = struct.unpack_from("<H", head, 18), struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    if machine != _X86_64 or size != 56 or count > _MOST_HEADERS or start > MOST_BYTES:
        return []
    file.seek(start)
    table = file.read(size * count)
    if len(table) < size * count:
        return []
    return [struct.unpack_from("<I4xQ16xQ", table, place) for place in range(0, len(table), size)]


def _is_among(notes: bytes) -> bool:
    """Return whether the notes of a segment contain the entry point."""
    place = 0
    while place + 12 <= len(notes):
        owner_bytes, value_bytes, kind = struct.unpack_from("<III", notes, place)
        if kind == _NOTE_ENTRY and notes[place + 12 : place + 16] == _OWNER and value_bytes in (4, 8):
            return True
        place += 12 + (owner_bytes + 3 & ~3) + (value_bytes + 3 & ~3)
    return False
