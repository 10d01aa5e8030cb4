"""Keeping what is needed to give out again the very tar that a layer came as, without keeping the tar.

The contents are in the layer's EROFS file already. The index keeps the rest (headers, padding, order), which compresses
to a few bytes per file, and where each content lies. So a layer can leave the store with the digest it came with.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from images.layer.erofs import Extents
from images.store.image import ImageError, Layer
from vmctl.errors import NotFoundError
from vmctl.units import format_size

SUFFIX = ".tar-index"
HEADERS_BYTES_MAX = 1 << 20  # of one read that is kept: names and attributes of one entry
_SIZE = struct.Struct("<Q")  # of the tar; what follows is deflated
_RECORD = struct.Struct("<qQ")  # offset in the EROFS file and length; or one of these two:
_LITERAL, _ZEROS = -2, -1
_PART = 1 << 20


class Recorder:
    """A tar as it arrives: measured, and recorded but for the contents.

    `read` and `tell` are those of a file, for what reads headers; `content` is for what stores contents.
    """

    def __init__(self, stream: BinaryIO, index: BinaryIO, limit_bytes: int | None, progress: Callable[[int], None]):
        self._stream, self._index = stream, index
        index.write(_SIZE.pack(0))
        self._limit_bytes = limit_bytes
        self._progress = progress
        self._sha256 = hashlib.sha256()
        self._deflate = zlib.compressobj(6)
        self._literal = bytearray()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        """The SHA-256 of all that was read so far."""
        return "sha256:" + self._sha256.hexdigest()

    def tell(self) -> int:
        """Return how much has been read, in bytes."""
        return self.size_bytes

    def seek(self, offset: int) -> None:
        """Refuse: a tar that arrives goes forward only."""
        raise ImageError(f"the tar's entry at byte {offset} is damaged")

    def read(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end, and record them as they are. Raises ImageError for too many."""
        if length > HEADERS_BYTES_MAX or length < 0:
            raise ImageError("the tar has an entry whose name or attributes are longer than 1 MiB")
        data = self._next(length)
        self._literal += data
        if len(self._literal) > _PART:
            self._flush()
        return data

    def content(self, length: int) -> bytes:
        """Return exactly the next `length` bytes, which are then to be recorded by `lies_at`. Raises ImageError."""
        data = self._next(length)
        if len(data) < length:
            raise ImageError(f"the tar ends in the middle of an entry, after {self.size_bytes} bytes")
        return data

    def expect(self, length: int) -> None:
        """Refuse a content of that many bytes, holes included, before any of it is read. Raises ImageError."""
        if self._limit_bytes is not None and self.size_bytes + length > self._limit_bytes:
            raise self._above_limit()

    def lies_at(self, extents: Extents) -> None:
        """Record where the content that was just read lies in the EROFS file."""
        self._flush()
        for offset, length in extents:
            self._record(offset, length)

    def finish(self) -> None:
        """Read what follows the last entry, which must be empty, and complete the index. Raises ImageError."""
        while data := self._next(_PART):
            if data.count(0) != len(data):
                raise ImageError(f"the tar is damaged near byte {self.size_bytes}: no entry begins there")
            self._flush()
            self._record(_ZEROS, len(data))
        self._flush()
        self._index.write(self._deflate.flush())
        self._index.seek(0)
        self._index.write(_SIZE.pack(self.size_bytes))

    def _next(self, length: int) -> bytes:
        data = self._stream.read(length)
        while len(data) < length and (more := self._stream.read(length - len(data))):
            data += more
        self._sha256.update(data)
        self.size_bytes += len(data)
        if self._limit_bytes is not None and self.size_bytes > self._limit_bytes:
            raise self._above_limit()
        self._progress(self.size_bytes)
        return data

    def _above_limit(self) -> ImageError:
        return ImageError(
            f"the layer unpacks to more than {format_size(self._limit_bytes or 0)}, the limit for one of its size",
            hint="`--max-size` raises the limit, if you trust where it comes from",
        )

    def _flush(self) -> None:
        if self._literal:
            self._record(_LITERAL, len(self._literal))
            self._index.write(self._deflate.compress(bytes(self._literal)))
            self._literal.clear()

    def _record(self, offset: int, length: int) -> None:
        self._index.write(self._deflate.compress(_RECORD.pack(offset, length)))


def index_path(layer_path: str) -> str:
    """Return where the index of a layer is kept."""
    return layer_path.removesuffix(".erofs") + SUFFIX


def tar_bytes(layer_path: str) -> int:
    """Return the size of the tar that a layer came as. Raises OSError."""
    with open(index_path(layer_path), "rb") as file:
        size: int = _SIZE.unpack(file.read(_SIZE.size))[0]
    return size


def open_tar(layer: Layer) -> BinaryIO:
    """Return the tar that a layer came as, to be read from begin to end. Raises NotFoundError."""
    for path in (index_path(layer.path), layer.path):
        if not os.path.exists(path):
            raise NotFoundError(f"the layer {layer.digest} lacks {path}", hint="get the image again")
    return Pieces.file(_parts(layer))


def _parts(layer: Layer) -> Iterator[bytes]:
    """Yield the tar piece by piece."""
    with open(index_path(layer.path), "rb") as index, open(layer.path, "rb") as data:
        index.seek(_SIZE.size)
        records = Pieces.file(_inflated(index))
        while head := records.read(_RECORD.size):
            offset, length = _RECORD.unpack(head)
            for start in range(0, length, _PART):
                part = min(_PART, length - start)
                if offset == _LITERAL:
                    yield records.read(part)
                elif offset == _ZEROS:
                    yield bytes(part)
                else:
                    yield os.pread(data.fileno(), part, offset + start)


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    inflate = zlib.decompressobj()
    while packed := file.read(64 * 1024):
        data = inflate.decompress(packed)
        if data:
            yield data


class Pieces(io.RawIOBase):
    """A file that is the pieces of an iterator, one behind the other."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts = parts
        self._rest = memoryview(b"")

    @classmethod
    def file(cls, parts: Iterator[bytes]) -> BinaryIO:
        """Return a buffered file with the pieces as its content."""
        return io.BufferedReader(cast(io.RawIOBase, cls(parts)), _PART)

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fill the buffer with the next bytes and return how many; 0 at the end."""
        while not self._rest:
            try:
                self._rest = memoryview(next(self._parts))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
