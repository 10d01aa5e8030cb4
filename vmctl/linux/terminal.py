"""The user's terminal while it is connected to a command in an instance. See termios(3), ioctl_tty(2), pts(4)."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vmctl.light import signal
from vmctl.linux import syscalls
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441  # asm-generic/ioctls.h; the module termios lacks them
_DEVPTS_SUPER_MAGIC = 0x1CD1  # linux/magic.h


def size(fd: int) -> tuple[int, int]:
    """Return (columns, lines) of a terminal; 80 x 24 if `fd` is not a terminal."""
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        return 80, 24
    return columns or 80, lines or 24  # a terminal without a size reports 0


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Put the terminal into raw mode: every key, also Ctrl-C, is sent to the command in the instance.

    It is as it was before at the end, and while this process is stopped by SIGTSTP.
    """
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)

    def stop(*_: object) -> None:
        _set(fd, before)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns when this process goes on
        signal.signal(signal.SIGTSTP, stop)

    def go_on(*_: object) -> None:  # a shell sets modes when it takes the terminal
        if os.tcgetpgrp(fd) == os.getpgrp():
            tty.setraw(fd, termios.TCSADRAIN)

    handlers = [
        (number, signal.signal(number, act)) for number, act in ((signal.SIGTSTP, stop), (signal.SIGCONT, go_on))
    ]
    try:
        tty.setraw(fd, termios.TCSADRAIN)  # what is typed meanwhile is kept
        yield
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
        _set(fd, before)


def _set(fd: int, modes: list[Any]) -> None:
    with suppress(termios.error):  # it was closed
        termios.tcsetattr(fd, termios.TCSADRAIN, modes)


@contextmanager
def resized(report: Callable[[], None]) -> Iterator[None]:
    """Call `report` each time the window changes its size."""
    before = signal.signal(signal.SIGWINCH, lambda *_: report())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def open_pair(ptmx: int) -> int:
    """Return the other side, the slave, of a terminal whose master was just opened; it has the size of ours.

    It is opened by TIOCGPTPEER, without a path (Linux 4.13). Raises OSError if `ptmx` is not the one of a devpts
    file system.
    """
    if not _is_multiplexer(ptmx):
        raise OSError(errno.ENOTTY, "/dev/pts is not a devpts file system", "/dev/pts/ptmx")
    fcntl.ioctl(ptmx, _TIOCSPTLCK, struct.pack("i", 0))
    copy_size(ptmx)  # before a process in the instance can read it
    return fcntl.ioctl(ptmx, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def _is_multiplexer(fd: int) -> bool:
    """Return whether this is /dev/pts/ptmx: the number of its device is that of /dev/ptmx too, the file system not."""
    status = os.fstat(fd)
    device = stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(5, 2)
    return device and syscalls.file_system(fd) == _DEVPTS_SUPER_MAGIC


def make_controlling(fd: int) -> None:
    """Make a terminal the controlling terminal of this session, which has none yet."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def copy_size(master: int) -> None:
    """Give a terminal the size of ours."""
    columns, lines = size(0)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
