"""What every attached command needs: all bytes written, and signals passed on instead of obeyed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all is written. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def signals_to(send: Callable[[int], object]) -> Iterator[None]:
    """Have the signals that would end this process handed to `send`."""
    before = {number: signal.signal(number, lambda number, _: send(number)) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
