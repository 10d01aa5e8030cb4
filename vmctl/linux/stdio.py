"""Functions for attached commands: write all bytes, and pass signals on to the workload."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def write_all(fd: int, data: bytes) -> None:
    """Repeat write(2) until all bytes are written. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def signals_to(send: Callable[[int], object]) -> Iterator[None]:
    """Call `send` for each signal that would end this process."""
    before = {number: signal.signal(number, lambda number, _: send(number)) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
