"""Indexes that rebuild a layer's original tar, byte for byte, without a copy of it.

The layer's EROFS file already has the contents. The index has the rest (headers, padding, order), which compresses to a
few bytes per file, and the position of each content. So an exported layer has the digest it was imported with.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from images.layer.erofs import Extents
from images.layer.readers import from_iterator
from images.store.image import ImageError, Layer
from vmctl.errors import NotFoundError
from vmctl.spec.units import format_size

SUFFIX = ".tar-index"
HEADERS_BYTES_MAX = 1 << 20  # size of one read that is recorded: name and attributes of one entry
_SIZE = struct.Struct("<Q")  # size of the tar; the rest of the index is deflated
_RECORD = struct.Struct("<qQ")  # offset in the EROFS file, or one of the two values below; length
_LITERAL, _ZEROS = -2, -1
_PART = 1 << 20


class Recorder:
    """Reads a tar once, measures it, and records all of it but the contents in an index.

    `read` and `tell` are the methods of a file, for the reader of headers; `read_content` is for contents.
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
        """The SHA-256 of all bytes read so far."""
        return "sha256:" + self._sha256.hexdigest()

    def tell(self) -> int:
        """Return how much has been read, in bytes."""
        return self.size_bytes

    def seek(self, offset: int) -> None:
        """Raise ImageError: the stream cannot seek, and only the header of a damaged entry asks for it."""
        raise ImageError(f"the tar's entry at byte {offset} is damaged")

    def read(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end, and record them. Raises ImageError if `length` is too large."""
        if length > HEADERS_BYTES_MAX or length < 0:
            raise ImageError("the tar has an entry whose name or attributes are longer than 1 MiB")
        data = self._next(length)
        self._literal += data
        if len(self._literal) > _PART:
            self._flush()
        return data

    def read_content(self, length: int) -> bytes:
        """Return exactly the next `length` bytes; the caller then calls `record_content`. Raises ImageError."""
        data = self._next(length)
        if len(data) < length:
            raise ImageError(f"the tar ends in the middle of an entry, after {self.size_bytes} bytes")
        return data

    def check_limit(self, length: int) -> None:
        """Raise ImageError if a content of `length` bytes, holes included, would exceed the limit."""
        if self._limit_bytes is not None and self.size_bytes + length > self._limit_bytes:
            raise self._above_limit()

    def record_content(self, extents: Extents) -> None:
        """Record the position in the EROFS file of the content that was just read."""
        self._flush()
        for offset, length in extents:
            self._record(offset, length)

    def finish(self) -> None:
        """Read the padding after the last entry and complete the index. Raises ImageError if it is not zeros."""
        while data := self._next(_PART):
            if data.count(0) != len(data):
                raise ImageError(f"the tar is damaged near byte {self.size_bytes}: data that is not an entry")
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
            f"the layer unpacks to more than {format_size(self._limit_bytes or 0)}, the limit for its compressed size",
            hint="if you trust the source of the image, raise the limit with --max-size",
        )

    def _flush(self) -> None:
        if self._literal:
            self._record(_LITERAL, len(self._literal))
            self._index.write(self._deflate.compress(bytes(self._literal)))
            self._literal.clear()

    def _record(self, offset: int, length: int) -> None:
        self._index.write(self._deflate.compress(_RECORD.pack(offset, length)))


def index_path(layer_path: str) -> str:
    """Return the path of a layer's index."""
    return layer_path.removesuffix(".erofs") + SUFFIX


def tar_bytes(layer_path: str) -> int:
    """Return the size of a layer's original tar. Raises OSError."""
    with open(index_path(layer_path), "rb") as file:
        size: int = _SIZE.unpack(file.read(_SIZE.size))[0]
    return size


def open_tar(layer: Layer) -> BinaryIO:
    """Return a layer's original tar, to be read from start to end. Raises NotFoundError."""
    for path in (index_path(layer.path), layer.path):
        if not os.path.exists(path):
            raise NotFoundError(f"the file {path} of the layer {layer.digest} is missing", hint="get the image again")
    return from_iterator(_parts(layer))


def _parts(layer: Layer) -> Iterator[bytes]:
    """Yield the tar in parts."""
    with open(index_path(layer.path), "rb") as index, open(layer.path, "rb") as data:
        index.seek(_SIZE.size)
        records = from_iterator(_inflated(index))
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
