"""The user's terminal while it is connected to a command in an instance. See termios(3), ioctl_tty(2), pts(4)."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vmctl.linux.stdio import write_all

_TIOCGPTN, _TIOCSPTLCK = 0x80045430, 0x40045431  # asm-generic/ioctls.h; the module termios lacks them


def size(fd: int) -> tuple[int, int]:
    """Return (columns, lines) of a terminal; 80 x 24 if `fd` is not a terminal."""
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return columns or 80, lines or 24  # a terminal without a size reports 0


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Put the terminal into raw mode: every key, also Ctrl-C, is sent to the command in the instance."""
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
    """Call `report` each time the window changes its size."""
    before = signal.signal(signal.SIGWINCH, lambda *_: report())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def open_pair(devpts: str) -> tuple[int, str]:
    """Open a new terminal of a devpts file system; return the master, and the slave's path in the instance."""
    master = os.open(os.path.join(devpts, "ptmx"), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    (number,) = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
    _copy_size(master)  # before a process in the instance can read it
    return master, f"/dev/pts/{number}"


def make_controlling(fd: int) -> None:
    """Make a terminal the controlling terminal of this session, which has none yet."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def relay(master: int) -> None:
    """Connect this process's stdin and stdout with a terminal's master until the last user of the slave closes it."""
    with raw(0), resized(lambda: _copy_size(master)):
        _copy_size(master)
        poller = select.poll()
        poller.register(master, select.POLLIN)
        poller.register(0, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                data = _read(fd)
                if fd == master and not data:
                    return
                if not data:
                    poller.unregister(0)
                    data = b"\x04"  # Ctrl-D: the line discipline's end of file
                write_all(1 if fd == master else master, data)


def _copy_size(master: int) -> None:
    columns, lines = size(0)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # EIO: the other side is closed
        return b""
