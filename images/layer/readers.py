"""Streams: a section of another file, the output of an iterator, and a stream that verifies its digest."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast

from images.store.image import ImageError

_PART = 1 << 20


class Source(Protocol):
    """A stream that can be read forward."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class Section(io.RawIOBase):
    """A range of bytes of an open file. Sections of one file can be read at the same time."""

    def __init__(self, fd: int, offset: int, size_bytes: int) -> None:
        super().__init__()
        self._fd, self._offset, self._end = fd, offset, offset + size_bytes

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer and return the number of bytes; 0 is the end."""
        wanted = min(len(buffer), self._end - self._offset)
        count = os.preadv(self._fd, [buffer[:wanted]], self._offset) if wanted > 0 else 0
        self._offset += count
        return count


class _IteratorReader(io.RawIOBase):
    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts = parts
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._rest:
            try:
                self._rest = memoryview(next(self._parts))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def from_iterator(parts: Iterator[bytes]) -> BinaryIO:
    """Return a buffered stream of the concatenated parts."""
    return io.BufferedReader(cast(io.RawIOBase, _IteratorReader(parts)), _PART)


class VerifiedStream:
    """A stream of known digest and size. Reading to its end raises ImageError if either does not match.

    An empty digest or a size of -1 is not verified. `progress` is called with the number of bytes read so far.
    """

    def __init__(
        self, stream: Source, what: str, *, digest: str = "", size_bytes: int = -1, progress: Callable[[int], None]
    ) -> None:
        self._stream, self._what = stream, what
        self._digest, self._size_bytes = digest, size_bytes
        self._progress = progress
        self._hash = hashlib.new(digest.partition(":")[0]) if digest else None
        self.read_bytes = 0

    def read(self, size: int = _PART, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        data = self._stream.read(size)
        self.read_bytes += len(data)
        if self._hash is not None:
            self._hash.update(data)
        self._progress(self.read_bytes)
        if 0 <= self._size_bytes < self.read_bytes:
            raise ImageError(f"{self._what} is longer than its declared {self._size_bytes} bytes")
        if not data:
            self._verify()
        return data

    def close(self) -> None:
        """Close the stream, if it can be closed."""
        if close := getattr(self._stream, "close", None):
            close()

    def finish(self) -> None:
        """Read the rest, so that the whole stream is verified."""
        while self.read():
            pass

    def _verify(self) -> None:
        if self._size_bytes > self.read_bytes:
            raise ImageError(f"{self._what} is truncated: {self.read_bytes} of {self._size_bytes} bytes")
        if self._hash is not None and self._hash.hexdigest() != self._digest.partition(":")[2]:
            found = f"{self._digest.partition(':')[0]}:{self._hash.hexdigest()}"
            raise ImageError(f"{self._what} does not match its digest: its content has {found}")


def verified(data: bytes, digest: str, what: str) -> bytes:
    """Return the data if it has that digest. Raises ImageError."""
    algorithm, _, value = digest.partition(":")
    if hashlib.new(algorithm, data).hexdigest() != value:
        found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        raise ImageError(f"{what} does not match its digest {digest}: its content has {found}")
    return data
