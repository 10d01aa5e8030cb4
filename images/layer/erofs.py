"""Writes EROFS, the kernel's read-only file system (Linux: Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h).

An EROFS file is written in one pass while a tar is read: contents go straight to their blocks, inodes fill metadata
blocks between them, and folders come last, since they need the inode numbers of their entries. Nothing is unpacked on
the host, so owners, devices and attributes need no privilege, and a name in an archive cannot reach a file of the host.
The same input gives the same bytes. The files are not compressed: a program's first start takes as long from an lz4
layer as from a plain one, and a guest without KVM would decompress at the speed of an emulator.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator

from images.layer.tree import Attributes, Directory, Leaf
from images.store.image import ImageError

BLOCK = 4096
MAGIC = 0xE0F5E1E2
SUPERBLOCK_AT, SUPERBLOCK = 1024, struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
CHUNKED_FILE = 0x4  # feature_incompat
INODE = struct.Struct("<HHHHQIIIIQII16x")  # struct erofs_inode_extended
DIRENT = struct.Struct("<QHBx")
PLAIN, INLINE, CHUNKS = 0, 2, 4  # data layouts
HOLE = 0xFFFFFFFF  # address of a chunk of zeros
SLOT = 32  # bytes; an inode's number is its offset divided by this
FILE_TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFLNK: 7}
XATTR_PREFIXES = {  # name -> index; longest first, since only the rest of the name is stored
    "system.posix_acl_access": 2,
    "system.posix_acl_default": 3,
    "security.": 6,
    "trusted.": 4,
    "user.": 1,
}
_NO_ATTRIBUTES = b""
_XATTR_HEADER = bytes(12)  # struct erofs_xattr_ibody_header: no filter, nothing shared
_OPEN_PAGES = 16  # metadata blocks kept open to be filled; more than this saves no space
_LEAST_CHUNK = 64 * 1024
_MOST_CHUNKS = 1 << 16
_ROOT_AT = SUPERBLOCK_AT + SUPERBLOCK.size  # its number must fit 16 bits

Read = Callable[[int], bytes]  # returns exactly the given number of bytes of a content, or raises
Extents = list[tuple[int, int]]  # the position of a content in the file: (offset, length); offset -1 for zeros


class _Page:
    """A metadata block that is being filled."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.used = 0
        self.data = bytearray(BLOCK)


class Writer:
    """Writes one EROFS file. Raises ImageError if the format cannot represent the input, OSError if a write fails."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end = 1  # the first free block; block 0 has the superblock and the root folder's inode
        self._pages: list[_Page] = []
        self._inodes = 0
        self._features = 0

    def regular(self, attributes: Attributes, size_bytes: int, read: Read) -> tuple[int, Extents]:
        """Write a file's content and inode; return the inode's number and the position of the content."""
        if size_bytes <= _LEAST_CHUNK:
            return self._flat(attributes, 0, 0, read(size_bytes))
        chunk_bytes = _LEAST_CHUNK
        while size_bytes > chunk_bytes * _MOST_CHUNKS:
            chunk_bytes *= 2
        zeros = bytes(chunk_bytes)
        addresses, start, tail = [], self._end, b""
        for offset in range(0, size_bytes, chunk_bytes):
            piece = read(min(chunk_bytes, size_bytes - offset))
            whole = len(piece) - len(piece) % BLOCK
            if whole and piece == (zeros if len(piece) == chunk_bytes else bytes(len(piece))):
                addresses.append(HOLE)
                continue
            addresses.append(self._end)
            self._append(piece[:whole] if whole != len(piece) else piece)
            tail = piece[whole:]
        if HOLE not in addresses:
            return self._flat(attributes, start, size_bytes - len(tail), tail)
        self._append(tail)
        return self._chunked(attributes, size_bytes, chunk_bytes, addresses)

    def other(self, attributes: Attributes, *, target: bytes = b"", device: int = 0) -> int:
        """Write the inode of a symbolic link, device or FIFO and return its number."""
        if stat.S_ISLNK(attributes.mode):
            if len(target) >= BLOCK:
                raise ImageError("a symbolic link has a target of 4096 bytes or more")
            return self._flat(attributes, 0, 0, target)[0]
        major, minor = os.major(device), os.minor(device)  # as the kernel's new_encode_dev()
        return self._inode(attributes, PLAIN, 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)

    def finish(self, root: Directory) -> None:
        """Write the folders and the superblock. Inodes that are not below `root` take space but have no name."""
        folders = list(_walk(root))
        links = _link_counts(folders)
        places = {id(root): (_ROOT_AT // SLOT, PLAIN, self._place_root(root))}
        for folder, _ in folders[1:]:
            places[id(folder)] = self._place_folder(folder)
        for page in self._pages:
            self._flush(page)
        for folder, parent in folders:
            self._folder(folder, places[id(parent)][0], places)
        for number, count in links.items():
            os.pwrite(self._fd, struct.pack("<I", count), number * SLOT + 44)  # i_nlink
        os.ftruncate(self._fd, self._end * BLOCK)
        self._superblock()

    # contents

    def _append(self, data: bytes) -> int:
        """Write data to the next blocks and return the first one's number."""
        start = self._end
        write_at(self._fd, data, start * BLOCK)
        self._end += -(-len(data) // BLOCK)
        return start

    def _flat(self, attributes: Attributes, start: int, before: int, rest: bytes) -> tuple[int, Extents]:
        """Write the rest of a content, whose first `before` bytes are at block `start`, and its inode.

        The last, partial block is stored inline after the inode if it fits into the same block. A large file, which
        begins before the rest, has none: guests can read in place only files that are whole blocks (vmm/pmem.py).
        """
        size = before + len(rest)
        whole = len(rest) - len(rest) % BLOCK
        if before or INODE.size + len(_xattr_body(attributes)) + len(rest) - whole > BLOCK:
            whole = len(rest)
        if whole:
            block = self._append(rest[:whole])
            start = start if before else block
        tail = rest[whole:]
        number = self._inode(attributes, INLINE if tail else PLAIN, size, start if size > len(tail) else 0, tail)
        extents = [(start * BLOCK, size - len(tail))] if size > len(tail) else []
        if tail:
            extents.append((number * SLOT + INODE.size + len(_xattr_body(attributes)), len(tail)))
        return number, extents

    def _chunked(
        self, attributes: Attributes, size: int, chunk_bytes: int, addresses: list[int]
    ) -> tuple[int, Extents]:
        self._features |= CHUNKED_FILE
        table = struct.pack(f"<{len(addresses)}I", *addresses)
        form = (chunk_bytes // BLOCK).bit_length() - 1
        number = self._inode(attributes, CHUNKS, size, form, table)
        lengths = [chunk_bytes] * (len(addresses) - 1) + [size - chunk_bytes * (len(addresses) - 1)]
        places = zip(addresses, lengths, strict=True)
        return number, [(-1 if block == HOLE else block * BLOCK, length) for block, length in places]

    # inodes

    def _inode(self, attributes: Attributes, layout: int, size: int, address: int, inline: bytes = b"") -> int:
        record = self._record(attributes, layout, size, address) + inline
        offset = self._reserve(len(record))
        self._put(offset, record)
        return offset // SLOT

    def _record(self, attributes: Attributes, layout: int, size: int, address: int, links: int = 1) -> bytes:
        """Return an inode with its extended attributes. `address`: the inode's union i_u, which depends on the type."""
        body = _xattr_body(attributes)
        self._inodes += 1
        seconds, nanoseconds = divmod(attributes.mtime_ns, 10**9)
        return (
            INODE.pack(
                1 | layout << 1,
                1 + (len(body) - len(_XATTR_HEADER)) // 4 if body else 0,
                attributes.mode,
                0,
                size,
                address,
                self._inodes & 0xFFFFFFFF,
                attributes.uid,
                attributes.gid,
                seconds & 0xFFFFFFFFFFFFFFFF,
                nanoseconds,
                links,
            )
            + body
        )

    def _reserve(self, length: int) -> int:
        """Return an offset for metadata: within one block, or at the start of a block if it is longer than a block."""
        if length > BLOCK:
            place, self._end = self._end * BLOCK, self._end - (-length // BLOCK)
            return place
        fitting = [page for page in self._pages if page.used + length <= BLOCK]
        page = max(fitting, key=lambda page: page.used) if fitting else self._open_page()
        place = page.block * BLOCK + page.used
        page.used += -(-length // SLOT) * SLOT
        return place

    def _open_page(self) -> _Page:
        if len(self._pages) == _OPEN_PAGES:
            fullest = max(self._pages, key=lambda page: page.used)
            self._pages.remove(fullest)
            self._flush(fullest)
        page = _Page(self._end)
        self._end += 1
        self._pages.append(page)
        return page

    def _put(self, offset: int, record: bytes) -> None:
        for page in self._pages:
            if page.block == offset // BLOCK:
                page.data[offset % BLOCK : offset % BLOCK + len(record)] = record
                return
        write_at(self._fd, record, offset)

    def _flush(self, page: _Page) -> None:
        write_at(self._fd, bytes(page.data), page.block * BLOCK)

    # folders

    def _place_root(self, root: Directory) -> int:
        if _ROOT_AT + INODE.size + len(_xattr_body(root.attributes)) > BLOCK:
            raise ImageError("the root folder has more extended attributes than fit")
        return self._blocks_for(sum(map(_block_bytes, _dirent_blocks(root))))

    def _place_folder(self, folder: Directory) -> tuple[int, int, int]:
        """Reserve a folder's place; return its inode number, its layout, and the first block of its entries."""
        *full, last = map(_block_bytes, _dirent_blocks(folder))
        head = INODE.size + len(_xattr_body(folder.attributes))
        if head + last <= BLOCK:
            start = self._blocks_for(len(full) * BLOCK)
            return self._reserve(head + last) // SLOT, INLINE, start
        start = self._blocks_for(len(full) * BLOCK + last)
        return self._reserve(head) // SLOT, PLAIN, start

    def _blocks_for(self, length: int) -> int:
        start = self._end
        self._end += -(-length // BLOCK)
        return start

    def _folder(self, folder: Directory, parent: int, places: dict[int, tuple[int, int, int]]) -> None:
        number, layout, start = places[id(folder)]
        blocks = [_dirents(names, folder, number, parent, places) for names in _dirent_blocks(folder)]
        data = b"".join(block.ljust(BLOCK, b"\0") for block in blocks[:-1]) + blocks[-1]
        inline = data[-len(blocks[-1]) :] if layout == INLINE else b""
        links = 2 + sum(isinstance(child, Directory) for child in folder.children.values())
        record = self._record(folder.attributes, layout, len(data), start, links)
        write_at(self._fd, record + inline, number * SLOT)
        write_at(self._fd, data[: len(data) - len(inline)], start * BLOCK)

    def _superblock(self) -> None:
        numbers = (MAGIC, 0, 0, 12, 0, _ROOT_AT // SLOT, self._inodes, 0, 0, self._end, 0, 0)
        rest = (bytes(16), bytes(16), self._features, 0, 0, 0, 0, 0, 0, 0)
        write_at(self._fd, SUPERBLOCK.pack(*numbers, *rest), SUPERBLOCK_AT)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of the data at an offset. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _xattr_body(attributes: Attributes) -> bytes:
    """Return the extended attributes as stored after an inode: a header and the entries; empty without attributes."""
    if not attributes.xattrs:
        return _NO_ATTRIBUTES
    entries = b"".join(_xattr(name, value) for name, value in sorted(attributes.xattrs.items()))
    if len(entries) // 4 + 1 > 0xFFFF:
        raise ImageError("a file has more extended attributes than EROFS can store (256 KiB)")
    return _XATTR_HEADER + entries


def _xattr(name: str, value: bytes) -> bytes:
    prefix = next((prefix for prefix in XATTR_PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        raise ImageError(f"the extended attribute {name!r} has a prefix that EROFS cannot store")
    rest = os.fsencode(name.removeprefix(prefix))
    if len(rest) > 255 or len(value) > 0xFFFF:
        raise ImageError(f"the extended attribute {name[:80]!r} is longer than EROFS can store")
    entry = struct.pack("<BBH", len(rest), XATTR_PREFIXES[prefix], len(value)) + rest + value
    return entry + bytes(-len(entry) % 4)


def _walk(root: Directory) -> Iterator[tuple[Directory, Directory]]:
    """Yield every folder and its parent, from the top; not recursive, since an archive can exceed Python's limit."""
    waiting = [(root, root)]
    while waiting:
        folder, parent = waiting.pop()
        yield folder, parent
        below = (child for _, child in sorted(folder.children.items(), reverse=True) if isinstance(child, Directory))
        waiting.extend((child, folder) for child in below)


def _link_counts(folders: list[tuple[Directory, Directory]]) -> dict[int, int]:
    """Return inode number -> number of names, for inodes with several names."""
    counts: dict[int, int] = {}
    for folder, _ in folders:
        for child in folder.children.values():
            if isinstance(child, Leaf) and child.linked:
                counts[child.number] = counts.get(child.number, 0) + 1
    return counts


def _dirent_blocks(folder: Directory) -> Iterator[list[bytes]]:
    """Yield the sorted names of a folder, one list per block."""
    names: list[bytes] = []
    used = 0
    for name in sorted([b".", b"..", *folder.children]):
        if used + DIRENT.size + len(name) > BLOCK:
            yield names
            names, used = [], 0
        names.append(name)
        used += DIRENT.size + len(name)
    yield names


def _block_bytes(names: list[bytes]) -> int:
    return sum(DIRENT.size + len(name) for name in names)


def _dirents(
    names: list[bytes], folder: Directory, number: int, parent: int, places: dict[int, tuple[int, int, int]]
) -> bytes:
    """Return one block of a folder: its entries, then their names."""
    heads, offset = [], DIRENT.size * len(names)
    for name in names:
        child = folder.children.get(name)
        if child is None:
            target, mode = (number if name == b"." else parent), stat.S_IFDIR
        elif isinstance(child, Directory):
            target, mode = places[id(child)][0], stat.S_IFDIR
        else:
            target, mode = child.number, child.kind
        heads.append(DIRENT.pack(target, offset, FILE_TYPES[mode]))
        offset += len(name)
    return b"".join(heads) + b"".join(names)
