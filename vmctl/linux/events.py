"""Wait for an event of an instance without polling it a thousand times a second.

A process that wakes up every millisecond takes 1 to 5 % of a processor for that alone, in any language. A process that
sleeps in poll(2) takes nothing, and wakes up about 50 microseconds after the event.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from contextlib import suppress

from vmctl.linux import syscalls

LOOK_S = 0.1  # between two looks for what an event announces, because some changes cause none
PERIOD_S = 0.001  # between two looks, if there are no events to wait for
_CHANGES = syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_TO


class Events:
    """The events that wake one waiter. A context manager; an event before the call of `wait` is not missed.

    - `drained`: descriptors that `wait` reads empty each time, such as an eventfd(2); the caller closes them
    - `once`: descriptors that `wait` never reads; each wakes once
    - `pids`: processes; the end of each wakes once
    - `folder`: a folder; each change of a file in it wakes (inotify(7)). Closing the watch takes the kernel about 10 ms
    - `often`: some events have no descriptor, so `wait` returns every millisecond
    """

    def __init__(
        self,
        drained: Iterable[int],
        once: Iterable[int],
        pids: Iterable[int | None],
        *,
        folder: str | None = None,
        often: bool = False,
    ) -> None:
        self.ended = False  # whether one of the processes has ended
        self._often = often
        self._poller = select.poll()
        self._own: list[int] = []
        self._drained = set(drained)
        for pid in filter(None, pids):
            try:
                self._own.append(os.pidfd_open(pid))
            except ProcessLookupError:
                self.ended = True
        self._pidfds = frozenset(self._own)
        if folder:
            self._watch(folder)
        for fd in {*self._drained, *once, *self._own}:
            self._poller.register(fd, select.POLLIN)

    def _watch(self, folder: str) -> None:
        try:
            inotify = syscalls.inotify_init()
            self._own.append(inotify)
            self._drained.add(inotify)
            syscalls.inotify_add_watch(inotify, folder, _CHANGES)
        except OSError:  # this user has reached a limit of the kernel (inotify(7), /proc interfaces)
            self._often = True

    def wait(self, timeout_s: float) -> bool:
        """Wait for at most `timeout_s`; return whether something may have happened."""
        found = self._poller.poll(1000 * (min(timeout_s, PERIOD_S) if self._often else timeout_s))
        for fd, _ in found:
            self.ended |= fd in self._pidfds
            if fd in self._drained:
                with suppress(BlockingIOError):
                    os.read(fd, 65536)
            else:
                self._poller.unregister(fd)
        return self._often or bool(found)

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._own:
            os.close(fd)
        self._own.clear()
