"""Files of bounded size for output without bounds: the last bytes of a stream, or the first ones.

Small processes that run as long as an instance use it, so it imports very little. Its methods raise nothing: with
a full disk the output is lost, but the workload runs on.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from vmctl.logs.timewriter import TimeFile

TIMES = ".ends"  # of the file with the times of a FirstBytes

_NOTE_BYTES = 100
_TIMES = 1000  # that are noted


class Log:
    """The log of one stream: a file, and its older part `NAME.1`. Each has `limit` bytes, or a little more."""

    def __init__(self, path: str, limit: int) -> None:
        self.path, self.limit = path, limit
        self.fd, self.size, self.lost = -1, 0, 0  # `lost`: bytes that could not be written since the last write
        self.times = TimeFile()
        self._open()

    def write(self, data: bytes) -> None:
        """Append; what cannot be written is lost and counted."""
        if self.size >= self.limit:
            self._rotate()
        self.times.note(self.size)
        note = b"\n[vmctl: %d bytes of output are lost here, the log could not be written]\n" % self.lost
        note = note if self.lost else b""
        try:
            written = os.write(self.fd, note + data)
        except OSError:
            written = 0
        self.size += written
        if written < len(note):  # only a part of the note
            self.lost += len(data)
        else:
            self.lost = len(note) + len(data) - written

    def finish(self) -> None:
        """Note lost bytes; if the disk is still full, in the place of the last bytes that were written."""
        if self.lost:
            self.write(b"")
        if self.lost:
            self._cut(max(0, self.size - _NOTE_BYTES))
            self.write(b"")

    def _open(self) -> bool:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:  # a full disk, or its folder is gone: tried again at the next rotation
            return False
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.size = fd, os.lseek(fd, 0, os.SEEK_END)
        self.times.open(self.path, fd, self.limit // 2)
        return True

    def _rotate(self) -> None:
        try:
            os.rename(self.path, self.path + ".1")
        except OSError:
            pass
        self.times.rotate(self.path)
        if not self._open() or self.size >= self.limit:  # without a new file, the old content has to go
            self._cut(0)

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self.fd, size)
        except OSError:
            pass
        self.size = size
        self.times.clear()


class FirstBytes:
    """A file with the first `limit` bytes of a stream, and next to it the times of its parts.

    Each line there has the size of the file and since when it has it, in nanoseconds of CLOCK_MONOTONIC.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.fd, self.times = (
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600) for name in (path, path + TIMES)
        )
        self.limit, self.size, self.noted = limit, 0, 0

    def write(self, data: bytes) -> None:
        """Append what is below the limit; the time first, so that it is there when the bytes are read."""
        data = data[: self.limit - self.size]
        if data and self.noted < _TIMES:
            self.noted += 1
            _try_write(self.times, b"%d %d\n" % (self.size + len(data), monotonic_ns()))
        self.size += _try_write(self.fd, data)

    def finish(self) -> None:
        """Do nothing: what is lost is not noted."""


def _try_write(fd: int, data: bytes) -> int:
    """Write and return how many bytes were written: 0 on a full disk."""
    try:
        return os.write(fd, data) if data else 0
    except OSError:
        return 0
