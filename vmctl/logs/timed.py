"""Several logs as one sequence, in the order in which their lines were written.

The times are those of vmctl/logs/timewriter.py. Logs of a vmctl without them have the time 0: they come first, in the
order in which they are given. Everything is read in blocks, so logs of any size take no memory.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from vmctl.logs.logfile import OLDER, LogReader
from vmctl.logs.timewriter import MAGIC, RECORD_BYTES, SUFFIX

_LONGEST_LINE = 1 << 16  # a longer one is passed on in parts


class Piece(NamedTuple):
    """Whole lines of one log, or the end of a log; the time at which they were complete, 0 if it is not known."""

    time_ns: int
    data: bytes


class _Times:
    """The times of one file, for positions in ascending order."""

    def __init__(self, log: str, inode: int, position: int) -> None:
        self.fd = _opened(log, inode)
        self.at = self._index(position)
        self.now_ns = 0

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def split(self, position: int, data: bytes) -> Iterator[Piece]:
        """Yield parts of the data that begin at a position of the log, each with its time."""
        while data:
            while (record := self._record(self.at)) and record[1] <= position:
                self.now_ns, self.at = record[0], self.at + 1
            size = min(len(data), record[1] - position) if record else len(data)
            yield Piece(self.now_ns, data[:size])
            position, data = position + size, data[size:]

    def _record(self, index: int) -> tuple[int, int] | None:
        """Return time and position of a record."""
        data = os.pread(self.fd, RECORD_BYTES, (1 + index) * RECORD_BYTES) if self.fd >= 0 and index >= 0 else b""
        if len(data) < RECORD_BYTES:
            return None
        return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")

    def _index(self, position: int) -> int:
        """Return the index of the record that is in effect at a position, by bisection; 0 if no record is."""
        low, high = 0, os.fstat(self.fd).st_size // RECORD_BYTES if self.fd >= 0 else 0
        while low < high:
            middle = (low + high) // 2
            record = self._record(middle)
            if record and record[1] <= position:
                low = middle + 1
            else:
                high = middle
        return max(0, low - 1)


def _opened(log: str, inode: int) -> int:
    """Return the open file with the times of the file `inode` of a log, or -1."""
    header = MAGIC + max(0, inode).to_bytes(8, "little")
    for path in (log + SUFFIX, log + OLDER + SUFFIX, log + SUFFIX):  # the last one: it was rotated in between
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if os.pread(fd, RECORD_BYTES, 0) == header:
                return fd
            os.close(fd)
    return -1


class TimedLog:
    """A log that is read piece by piece; `queue` has the pieces that are read but not used."""

    def __init__(self, path: str) -> None:
        self.path, self.reader = path, LogReader(path)
        self.queue: deque[Piece] = deque()
        self.rest = b""  # the begin of a line
        self.waited = False  # whether `rest` is as old as the last call of `available`
        self._inode, self._times = -1, _Times(path, -1, 0)

    def close(self) -> None:
        """Close the files."""
        self._times.close()
        self.reader.close()

    def fill(self) -> None:
        """Read until there is a piece in the queue, or nothing more to read."""
        while not self.queue and (data := self.reader.read()):
            fd, end = self.reader.place()
            if (inode := os.fstat(fd).st_ino) != self._inode:
                self._times.close()
                self._inode, self._times = inode, _Times(self.path, inode, end - len(data))
            for piece in self._times.split(end - len(data), data):
                self._add(piece)

    def _add(self, piece: Piece) -> None:
        data = self.rest + piece.data
        cut = data.rfind(b"\n") + 1 if len(data) < _LONGEST_LINE or b"\n" in piece.data else len(data)
        self.rest, self.waited = data[cut:], False
        if cut:
            self.queue.append(Piece(piece.time_ns, data[:cut]))

    def take_rest(self) -> Piece:
        """Return the line that has no end so far."""
        data, self.rest = self.rest, b""
        return Piece(self._times.now_ns, data)


def available(logs: Sequence[TimedLog], *, final: bool) -> Iterator[tuple[TimedLog, Piece]]:
    """Yield what was written so far, in the order of its times.

    If it is not `final`, a piece that could be younger than one that was not read yet is left for the next call, and
    the begin of a line too, once.
    """
    now_ns = time.time_ns()  # what is not there when it is read below is written later
    while True:
        for log in logs:
            log.fill()
        ready = [log for log in logs if log.queue]
        if not ready:
            break
        first = min(ready, key=lambda log: log.queue[0].time_ns)
        if not final and len(ready) < len(logs) and first.queue[0].time_ns > now_ns:
            break
        yield first, first.queue.popleft()
    for log in sorted(logs, key=lambda log: log._times.now_ns):
        if log.rest and (final or log.waited):
            yield log, log.take_rest()
        log.waited = True


def size_bytes(log: TimedLog) -> int:
    """Return how much a log has at most by now."""
    total = 0
    for path in (log.path, log.path + OLDER):
        with suppress(FileNotFoundError):
            total += os.path.getsize(path)
    return total


def skip_to_tail(logs: Sequence[TimedLog], lines: int) -> int:
    """Move each log to its last lines and return how many lines the logs together have too many."""
    total = 0
    for log in logs:
        log.reader.skip_to_tail(lines)
        last = b"\n"
        while data := log.reader.read():
            total, last = total + data.count(b"\n"), data[-1:]
        total += last != b"\n"
        log.reader.skip_to_tail(lines)
    return max(0, total - lines)
