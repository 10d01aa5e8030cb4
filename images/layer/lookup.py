"""Looks up paths of an image in the layers' EROFS files, without a mount or privilege.

Layers are searched from the top, by the rules of overlayfs (tree.py). Reads the files that erofs.py writes, and the
files of mkfs.erofs without compression.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from images.layer import erofs
from images.layer.tree import LINKS_MAX, OPAQUE, Attributes
from images.store.image import Image, ImageError, Layer
from vmctl.named import NamedTuple

_INITS = ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")  # not busybox's init: it does not boot a system
_FOLDERS_CACHED = 64
_SMALL_BYTES_MAX = 1 << 28  # of a folder, which has up to 267 bytes for a name
_COMPACT = struct.Struct("<HHHHIIIIHHI")
_PREFIXES = {index: name for name, index in erofs.XATTR_PREFIXES.items()}


class Node(NamedTuple):
    """The file, folder or link at a path."""

    attributes: Attributes
    size_bytes: int
    links: int
    device: int = 0
    target: bytes = b""  # target of a symbolic link


class Inode(NamedTuple):
    """An inode as it is stored."""

    number: int
    layout: int
    address: int  # the union i_u: first block, device number, or chunk format
    inline_offset: int  # offset after the inode and its attributes
    attributes: Attributes
    size_bytes: int
    links: int


class Reader:
    """An open EROFS file. Methods raise ImageError if it is damaged."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._children: dict[int, dict[bytes, int]] = {}
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            magic, root = struct.unpack("<I10xH", self._bytes(erofs.SUPERBLOCK_AT, 16))
            if magic != erofs.MAGIC:
                raise self._damaged()
            self.root = self.inode(root)
        except ImageError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def inode(self, number: int) -> Inode:
        """Return the inode with a number."""
        place = number * erofs.SLOT
        head = self._bytes(place, erofs.INODE.size)
        form, xattr_count, mode = struct.unpack_from("<HHH", head)
        if form & 1:
            _, _, _, _, size, address, _, uid, gid, seconds, nanoseconds, links = erofs.INODE.unpack(head)
            length = erofs.INODE.size
        else:
            _, _, _, links, size, _, address, _, uid, gid, _ = _COMPACT.unpack_from(head)
            seconds = nanoseconds = 0
            length = _COMPACT.size
        if seconds >= 1 << 63:
            seconds -= 1 << 64
        xattrs_bytes = 12 + 4 * (xattr_count - 1) if xattr_count else 0
        xattrs = self._xattrs(place + length, xattrs_bytes)
        attributes = Attributes(mode, uid, gid, seconds * 10**9 + nanoseconds, xattrs)
        return Inode(number, form >> 1 & 7, address, place + length + xattrs_bytes, attributes, size, links)

    def children(self, folder: Inode) -> dict[bytes, int]:
        """Return name -> inode number for the entries of a folder; cached, since every lookup starts at the root."""
        if (known := self._children.get(folder.number)) is not None:
            return known
        data = self._small(folder)
        found: dict[bytes, int] = {}
        try:
            for start in range(0, len(data), erofs.BLOCK):
                found.update(_entries(data[start : start + erofs.BLOCK]))
        except (ValueError, struct.error):
            raise self._damaged() from None
        if len(self._children) >= _FOLDERS_CACHED:
            self._children.clear()
        self._children[folder.number] = {name: at for name, at in found.items() if name not in (b".", b"..")}
        return self._children[folder.number]

    def content(self, inode: Inode) -> Iterator[bytes]:
        """Yield the content of a file, folder or symbolic link."""
        for offset, length in self._extents(inode):
            for start in range(0, length, 1 << 20):
                part = min(1 << 20, length - start)
                yield bytes(part) if offset < 0 else self._bytes(offset + start, part)

    def link(self, inode: Inode) -> bytes:
        """Return the target of a symbolic link."""
        return self._small(inode)

    def _small(self, inode: Inode) -> bytes:
        if inode.size_bytes > _SMALL_BYTES_MAX:
            raise self._damaged()
        return b"".join(self.content(inode))

    def _extents(self, inode: Inode) -> erofs.Extents:
        size = inode.size_bytes
        if inode.layout == erofs.PLAIN:
            return [(inode.address * erofs.BLOCK, size)]
        if inode.layout == erofs.INLINE:
            whole = (size - 1) // erofs.BLOCK * erofs.BLOCK
            return [(inode.address * erofs.BLOCK, whole), (inode.inline_offset, size - whole)]
        if inode.layout != erofs.CHUNKS:
            raise self._damaged()
        chunk = erofs.BLOCK << (inode.address & 31)
        count = -(-size // chunk)
        blocks = struct.unpack(f"<{count}I", self._bytes(inode.inline_offset, 4 * count))
        lengths = [chunk] * (count - 1) + [size - chunk * (count - 1)]
        places = zip(blocks, lengths, strict=True)
        return [(-1 if block == erofs.HOLE else block * erofs.BLOCK, length) for block, length in places]

    def _xattrs(self, place: int, length: int) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        data, offset = self._bytes(place, length), 12
        while offset + 4 <= length:
            name_length, index, value_length = struct.unpack_from("<BBH", data, offset)
            value_at = offset + 4 + name_length
            name = _PREFIXES.get(index, "") + os.fsdecode(data[offset + 4 : value_at])
            found[name] = data[value_at : value_at + value_length]
            offset = value_at + value_length + (-(value_at + value_length) % 4)
        return found

    def _bytes(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._fd, length, offset)
        except (OSError, OverflowError):  # an offset that no file has
            raise self._damaged() from None
        if len(data) < length:
            raise self._damaged()
        return data

    def _damaged(self) -> ImageError:
        return ImageError(f"the layer {self._path} is damaged", hint="remove the image and get it again")


def _entries(block: bytes) -> Iterator[tuple[bytes, int]]:
    count = struct.unpack_from("<QH", block)[1] // erofs.DIRENT.size
    heads = [erofs.DIRENT.unpack_from(block, erofs.DIRENT.size * number) for number in range(count)]
    ends = [head[1] for head in heads[1:]] + [len(block)]
    for (number, start, _), end in zip(heads, ends, strict=True):
        yield block[start:end].rstrip(b"\0"), number


Place = tuple[Reader, Inode]  # an inode and the layer that has it


class View:
    """The merged layers as overlayfs would show them; a context manager that closes the layers' files."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._stack = ExitStack()
        self._root: list[Place] = []

    def __enter__(self) -> View:
        with ExitStack() as opened:
            for layer in reversed(self._layers):
                reader = Reader(layer.path)
                opened.callback(reader.close)
                self._root.append((reader, reader.root))
            self._stack = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def find(self, path: str | bytes, *, follow: bool = True) -> Node | None:
        """Return the node at a path, None if nothing is there. `follow`: follow the last name if it is a link."""
        places = self._resolve(os.fsencode(path), follow)
        return _node(*places[0]) if places else None

    def names(self, path: str | bytes) -> list[bytes]:
        """Return the sorted names in a folder; an empty list if the path is not a folder."""
        found: dict[bytes, bool] = {}
        for reader, folder in self._resolve(os.fsencode(path), True):
            if stat.S_ISDIR(folder.attributes.mode):
                for name, number in reader.children(folder).items():
                    found.setdefault(name, not _is_whiteout(reader.inode(number)))
        return sorted(name for name, exists in found.items() if exists)

    def content(self, path: str | bytes) -> Iterator[bytes]:
        """Yield the content of the file at a path; nothing if the path is not a regular file."""
        for reader, inode in self._resolve(os.fsencode(path), True)[:1]:
            if stat.S_ISREG(inode.attributes.mode):
                yield from reader.content(inode)

    def _resolve(self, path: bytes, follow: bool) -> list[Place]:
        """Return the inodes at a path: several if several layers have this folder, the uppermost first."""
        waiting = _reversed_names(path)
        folders = [self._root]
        followed = 0
        while waiting:
            name = waiting.pop()
            if name == b"..":
                folders = folders[:-1] or folders
                continue
            places = _children(folders[-1], name)
            if not places:
                return []
            reader, inode = places[0]
            if stat.S_ISLNK(inode.attributes.mode) and (waiting or follow):
                target = reader.link(inode)
                followed += 1
                if followed > LINKS_MAX:
                    return []
                folders = [self._root] if target.startswith(b"/") else folders
                waiting += _reversed_names(target)
            else:
                folders.append(places)
        return folders[-1]


def find(layers: Sequence[Layer], path: str | bytes, *, follow: bool = True) -> Node | None:
    """Return the node that overlayfs would show at a path, None if nothing is there. Raises ImageError, OSError."""
    with View(layers) as view:
        return view.find(path, follow=follow)


def has_init(image: Image) -> bool:
    """Return whether the image has an init system that boots it: systemd."""
    with View(image.layers) as view:
        return any(
            (node := view.find(path)) is not None and bool(node.attributes.mode & stat.S_IXUSR) for path in _INITS
        )


def _reversed_names(path: bytes) -> list[bytes]:
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def _children(places: list[Place], name: bytes) -> list[Place]:
    """Return the inodes with a name in a merged folder, by the rules of overlayfs: the uppermost layer decides."""
    found: list[Place] = []
    for reader, folder in places:
        if not stat.S_ISDIR(folder.attributes.mode):
            break
        number = reader.children(folder).get(name)
        if number is None:
            continue
        inode = reader.inode(number)
        if _is_whiteout(inode):
            break
        if not stat.S_ISDIR(inode.attributes.mode):
            return found or [(reader, inode)]
        found.append((reader, inode))
        if OPAQUE in inode.attributes.xattrs:
            break
    return found


def _is_whiteout(inode: Inode) -> bool:
    return stat.S_ISCHR(inode.attributes.mode) and inode.address == 0


def _node(reader: Reader, inode: Inode) -> Node:
    mode, number = inode.attributes.mode, inode.address
    device = os.makedev(number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00)
    target = reader.link(inode) if stat.S_ISLNK(mode) else b""
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return Node(inode.attributes, inode.size_bytes, inode.links, device if is_device else 0, target)
