"""The user's terminal while a command in a guest owns it."""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def size(fd: int) -> tuple[int, int]:
    """Return (columns, lines) of a terminal; 80 x 24 for what is none."""
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return columns, lines


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Have the terminal pass every key on, Ctrl-C too: it means the command in the guest. See termios(3)."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def resized(report: Callable[[], None]) -> Iterator[None]:
    """Call `report` whenever the window changes its size."""
    before = signal.signal(signal.SIGWINCH, lambda *_: report())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
