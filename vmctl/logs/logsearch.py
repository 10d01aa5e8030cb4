"""The search for a regular expression in a growing log, with a time limit."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl.logs.logfile import LogReader

_CONTEXT_BYTES = 1 << 14  # of earlier output, for a match that begins in it
_A_DAY_S = 86400.0


class LogSearch:
    """The search in one log, block by block."""

    def __init__(self, path: str) -> None:
        self.reader = LogReader(path)
        self.before = b""  # the end of what was searched already

    def finds(self, pattern: re.Pattern[bytes]) -> bool:
        """Return whether the output that is new contains a match, which may begin in earlier output."""
        while data := self.reader.read():
            text = self.before + data
            # from 1: the first byte is there only so that ^ does not match in the middle of a line
            if pattern.search(text, 1 if len(self.before) > _CONTEXT_BYTES else 0):
                return True
            self.before = text[-_CONTEXT_BYTES - 1 :]
        return False


@contextmanager
def interrupted_at(deadline_s: float) -> Iterator[None]:
    """Raise TimeoutError in the block at a time; also in a search by `re`, which looks for signals (main thread only).

    The time that a regular expression takes can grow exponentially with the output, which the workload chooses.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGALRM, _raise_timeout)
    timer = signal.setitimer(signal.ITIMER_REAL, min(max(0.001, deadline_s - time.monotonic()), _A_DAY_S))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _raise_timeout(*_: object) -> None:
    raise TimeoutError
