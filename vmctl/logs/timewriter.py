"""When each part of a log was written: a small file next to it, so that the log itself has only the workload's bytes.

`NAME.times` belongs to the log NAME, `NAME.1.times` to its older part. It begins with MAGIC and the inode number of its
log, followed by records of 16 bytes: the time in nanoseconds since 1970, and the position in the log that was written
next. Numbers have 8 bytes, little-endian. A record is in effect up to the position of the next one.

A record is written before its bytes, and only if another log of this process was written to in between or 10 ms have
passed, so a chatty workload costs 100 records a second. The file is bounded; without records, only the order is lost.
The supervisor of each container imports this module, so it imports nothing but what the interpreter has loaded anyway.
"""

from __future__ import annotations

import os
import time

MAGIC = b"vmctl-t1"
RECORD_BYTES = 16
SUFFIX = ".times"
_EVERY_NS = 10_000_000


class TimeFile:
    """The writer. Its methods raise nothing: with a full disk the times are lost, but the workload runs on."""

    latest: TimeFile | None = None  # that of the log that this process has written to last

    def __init__(self) -> None:
        self.fd, self.size, self.limit, self.noted_ns = -1, 0, 0, 0
        self.inode = b""

    def open(self, log: str, fd: int, limit: int) -> None:
        """Begin or continue the file of the log that is open as `fd`; it gets at most `limit` bytes."""
        try:
            times = os.open(log + SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.limit, self.noted_ns = times, limit, 0
        self.inode = os.fstat(fd).st_ino.to_bytes(8, "little")
        self.size = os.fstat(times).st_size // RECORD_BYTES * RECORD_BYTES
        if os.pread(times, RECORD_BYTES, 0) != MAGIC + self.inode:
            self.clear()

    def rotate(self, log: str) -> None:
        """Let the file follow its log, which has become the older part."""
        try:
            os.rename(log + SUFFIX, log + ".1" + SUFFIX)
        except OSError:
            pass

    def note(self, position: int) -> None:
        """Record that what is written now begins at a position of the log."""
        now = time.time_ns()
        if TimeFile.latest is self and 0 <= now - self.noted_ns < _EVERY_NS:
            return
        TimeFile.latest, self.noted_ns = self, now
        self._append(now.to_bytes(8, "little") + position.to_bytes(8, "little"))

    def clear(self) -> None:
        """Remove all records: their positions do not exist any more."""
        if self.fd < 0:
            return
        try:
            os.ftruncate(self.fd, 0)
        except OSError:
            pass
        self.size, self.noted_ns = 0, 0
        self._append(MAGIC + self.inode)

    def _append(self, record: bytes) -> None:
        """Write at the end; a record of which only a part fits on the disk is written again by the next call."""
        if self.fd < 0 or self.size >= self.limit:
            return
        try:
            if os.pwrite(self.fd, record, self.size) == RECORD_BYTES:
                self.size += RECORD_BYTES
        except OSError:
            pass
