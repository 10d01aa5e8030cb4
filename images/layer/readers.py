"""Files that are not files: a stretch of another file, a stream whose digest is watched."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from typing import Protocol

from images.store.image import ImageError

_PART = 1 << 20


class Source(Protocol):
    """What can be read forward."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class Stretch(io.RawIOBase):
    """Some bytes of an open file, which may be read at several places at once."""

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


class Watched:
    """A stream that must have the digest and the size it is said to have; reading its end raises ImageError if not.

    An empty digest and a size of -1 say nothing. `progress` is called with the number of bytes read so far.
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
            raise ImageError(f"{self._what} is longer than the {self._size_bytes} bytes it is said to have")
        if not data:
            self._verify()
        return data

    def close(self) -> None:
        """Close the stream, if it can be closed."""
        if close := getattr(self._stream, "close", None):
            close()

    def finish(self) -> None:
        """Read what is left, so that all of it is verified."""
        while self.read():
            pass

    def _verify(self) -> None:
        if self._size_bytes > self.read_bytes:
            raise ImageError(
                f"{self._what} is cut off: it has {self.read_bytes} of the {self._size_bytes} bytes it is said to have"
            )
        if self._hash is not None and self._hash.hexdigest() != self._digest.partition(":")[2]:
            found = f"{self._digest.partition(':')[0]}:{self._hash.hexdigest()}"
            raise ImageError(f"{self._what} is not what it is said to be: its digest is {found}")


def verified(data: bytes, digest: str, what: str) -> bytes:
    """Return the data if it has that digest. Raises ImageError."""
    algorithm, _, value = digest.partition(":")
    if hashlib.new(algorithm, data).hexdigest() != value:
        found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        raise ImageError(f"{what} {digest} is not what it is said to be: its digest is {found}")
    return data
