"""Waiting for something to happen to an instance without asking a thousand times a second.

A processor that is woken every millisecond spends 1 to 5 % of its time on that alone, in any language; whoever sleeps
in poll(2) spends nothing and is up some 50 microseconds after the event.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from contextlib import suppress

from vmctl.linux import syscalls

PERIOD_S = 0.001  # where events cannot be had
_CHANGES = syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_TO


class Events:
    """What can wake one waiter; use it as a context. What happens before `wait` is called is not missed.

    - `bells`: descriptors that are read, and so silenced, each time; they stay open
    - `once`: descriptors that somebody else reads, if anybody; each wakes once
    - `pids`: processes that end
    - `folder`: one whose files are changed (inotify(7)). To let go of it takes the kernel some 10 ms.
    - `often`: not everything that may happen can be heard of, so `wait` returns every millisecond
    """

    def __init__(
        self,
        bells: Iterable[int],
        once: Iterable[int],
        pids: Iterable[int | None],
        *,
        folder: str | None = None,
        often: bool = False,
    ) -> None:
        self.ended = False  # one of the processes has
        self._often = often
        self._poller = select.poll()
        self._own: list[int] = []
        self._bells = set(bells)
        for pid in filter(None, pids):
            try:
                self._own.append(os.pidfd_open(pid))
            except ProcessLookupError:
                self.ended = True
        self._pidfds = frozenset(self._own)
        if folder:
            self._watch(folder)
        for fd in {*self._bells, *once, *self._own}:
            self._poller.register(fd, select.POLLIN)

    def _watch(self, folder: str) -> None:
        try:
            inotify = syscalls.inotify_init()
            self._own.append(inotify)
            self._bells.add(inotify)
            syscalls.inotify_add_watch(inotify, folder, _CHANGES)
        except OSError:  # this user has as many already as the kernel allows (inotify(7), /proc interfaces)
            self._often = True

    def wait(self, timeout_s: float) -> bool:
        """Return whether something may have happened, after `timeout_s` at the latest."""
        found = self._poller.poll(1000 * (min(timeout_s, PERIOD_S) if self._often else timeout_s))
        for fd, _ in found:
            self.ended |= fd in self._pidfds
            if fd in self._bells:
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
