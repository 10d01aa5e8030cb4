"""Copy bytes between the caller's streams and those of a workload while it runs. See poll(2), pipe(7)."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl.light import signal
from vmctl.linux.stdio import NO_READER, drain, write_all

_PART_BYTES = 65536
_REST_BYTES = 1 << 20  # what a pipe can hold (pipe(7)); more than that after the end comes from other processes
_GONE = select.POLLERR | select.POLLHUP
_BACKGROUND_MS = 250  # between two looks whether this process may read from the terminal


def in_background(source: int) -> bool:
    """Return whether this is the terminal of another process group, from which reading is not allowed."""
    try:
        return os.tcgetpgrp(source) != os.getpgrp()
    except OSError:  # not a terminal, or not our controlling one
        return False


class Feed:
    """The way of the caller's input to a workload: from `source` to `target`, without ever blocking."""

    def __init__(self, source: int, target: int, *, unread: int | None = None) -> None:
        """`target`, a pipe, becomes non-blocking, so it must be ours alone.

        `unread` is the reading end of that pipe, if `source` is a file.
        """
        self.source, self.target, self.unread = source, target, unread
        self._rest, self._ended = b"", False
        self._tty = os.isatty(source)
        os.set_blocking(target, False)

    def in_background(self) -> bool:
        """See the function; asked before each wait, so only for a terminal."""
        return self._tty and in_background(self.source)

    def waits_for(self) -> dict[int, int]:
        """Return the events to wait for, by descriptor; errors of the target are always reported."""
        if self._rest:
            return {self.target: select.POLLOUT}
        return {self.target: 0} if self.in_background() else {self.target: 0, self.source: select.POLLIN}

    def copy(self, events: dict[int, int]) -> bool:
        """Copy after these events; return False if nothing more will be copied."""
        if events.get(self.target, 0) & _GONE:  # the workload has closed its input
            return False
        if not self._rest and self.source in events:
            self._rest = self._read()
        if self._rest:
            try:
                self._rest = self._rest[os.write(self.target, self._rest) :]
            except BlockingIOError:
                pass
            except OSError:
                return False
        return bool(self._rest) or not self._ended

    def _read(self) -> bytes:
        try:
            data = os.read(self.source, _PART_BYTES)
        except OSError:
            if self.in_background():  # since the look before
                return b""
            data = b""  # EIO: the terminal was closed
        self._ended = not data
        return data

    def give_back(self) -> None:
        """Seek a file back to the first byte that the workload has not read: the next program continues there."""
        if self.unread is None:
            return
        (waiting,) = struct.unpack("i", fcntl.ioctl(self.unread, termios.FIONREAD, bytes(4)))
        os.lseek(self.source, -waiting - len(self._rest), os.SEEK_CUR)


class Relay:
    """Copies while a child runs, from each key of `outputs` to its value. It owns our ends of the child's streams."""

    def __init__(self, outputs: dict[int, int], feed: Feed | None) -> None:
        self._targets, self._feed = outputs, feed
        ends = (feed.target, feed.unread) if feed else ()
        self._open = {*outputs, *(fd for fd in ends if fd is not None)}
        self._copied = set(outputs)
        self._error: OSError | None = None

    def run(self, pid: int, signals: int | None) -> None:
        """Copy until the child `pid` has ended and its output is written; it is not waited for.

        `signals` is the descriptor of `stdio.woken`, if this process handles signals. Output that other processes write
        after the end is dropped. Raises OSError if output could not be written, except if its reader has gone.
        """
        ended = os.pidfd_open(pid)
        try:
            with reading_in_background_fails():
                while ended not in (events := self._wait(ended, signals)):
                    self._copy(events)
                self._copy(events)
            self._copy_rest()
        finally:
            os.close(ended)
        if self._feed is not None:
            self._feed.give_back()
        if self._error is not None:
            raise self._error

    def close(self, *fds: int | None) -> None:
        """Close these descriptors, by default all."""
        for fd in self._open & set(fds or self._open):
            self._open.remove(fd)
            self._copied.discard(fd)
            os.close(fd)

    def _wait(self, ended: int, signals: int | None) -> dict[int, int]:
        """Return the events that have happened, by descriptor."""
        wanted = dict.fromkeys([ended, *self._copied], select.POLLIN)
        if signals is not None:
            wanted[signals] = select.POLLIN
        timeout_ms = None
        if self._feed is not None:
            for fd, mask in self._feed.waits_for().items():
                wanted[fd] = wanted.get(fd, 0) | mask
            timeout_ms = _BACKGROUND_MS if self._feed.in_background() else None
        poller = select.poll()
        for fd, mask in wanted.items():
            poller.register(fd, mask)
        events = dict(poller.poll(timeout_ms))
        if signals in events:
            drain(signals)
        return events

    def _copy(self, events: dict[int, int]) -> None:
        for source in [fd for fd in self._copied if events.get(fd, 0) & (select.POLLIN | _GONE)]:
            with suppress(BlockingIOError):
                if not self._copy_part(source):
                    self._copied.discard(source)
        if self._feed is not None and not self._feed.copy(events):
            self._feed.give_back()
            self.close(self._feed.target, self._feed.unread)
            self._feed = None

    def _copy_rest(self) -> None:
        """Copy what was written before the end."""
        for source in list(self._copied):
            os.set_blocking(source, False)
            left = _REST_BYTES
            with suppress(BlockingIOError):
                while left > 0 and (copied := self._copy_part(source)):
                    left -= copied

    def _copy_part(self, source: int) -> int:
        """Copy the available bytes and return their number, 0 if there will be no more."""
        data = os.read(source, _PART_BYTES)
        try:
            write_all(self._targets[source], data)
        except OSError as error:
            if error.errno not in NO_READER:
                what = f"the output could not be written: {error.strerror}"
                self._error = self._error or OSError(error.errno, what)
            self.close(source)  # the workload gets SIGPIPE
            return 0
        return len(data)


@contextmanager
def reading_in_background_fails() -> Iterator[None]:
    """Let reads of the terminal by a background process fail with EIO, instead of stopping the process (termios(3))."""
    before = signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTTIN, before)
