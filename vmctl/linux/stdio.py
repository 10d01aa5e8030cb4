"""The caller's streams of attached commands: which of them a workload may have, and signals on their way to it."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vmctl.light import signal

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
GRACE_S = 10  # from SIGHUP on: with its terminal a workload has lost who could end it
NO_READER = (errno.EPIPE, errno.EIO)  # nobody wants the output any more; EIO: the terminal was closed
_NULL = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes, also if another process has made `fd` non-blocking. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def is_null(fd: int) -> bool:
    """Return whether a descriptor is the null device."""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL


def only_bytes(fd: int) -> bool:
    """Return whether a descriptor of the caller gives a workload nothing but its bytes: an unnamed pipe, or /dev/null.

    /dev/null is opened again inside (`containers.launch.redirect`). All others give more: a terminal takes input as if
    it was typed (TIOCSTI, ioctl_tty(2)); a file can be opened again for writing through /proc/self/fd, or its mode be
    changed; a folder leads to all files of the host; a socket belongs to the host's network and transfers descriptors.
    """
    return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:[") or is_null(fd)


@contextmanager
def woken() -> Iterator[int]:
    """Yield a descriptor that becomes readable with each signal that this process handles (signal.set_wakeup_fd).

    A signal can arrive after Python's last look for one and before the call that blocks, which would then go on: who
    waits for something else includes this descriptor. Only for the main thread.
    """
    read, write = os.pipe()
    for fd in (read, write):
        os.set_blocking(fd, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def drain(fd: int) -> None:
    """Read what signals have written to the descriptor of `woken`; the handlers have run when this returns."""
    with suppress(BlockingIOError):
        os.read(fd, 65536)


@contextmanager
def signals_to(send: Callable[[int], object]) -> Iterator[None]:
    """Call `send` for each signal that would end this process, but for those that its caller ignores (nohup(1)).

    SIGKILL is sent in place of the second one, and `GRACE_S` after SIGHUP: no workload keeps its caller for ever.
    SIGQUIT does not count, because some programs only report on it.
    """
    counted = 0

    def handle(number: int, _: object) -> None:
        nonlocal counted
        if number == signal.SIGALRM and not counted:  # of one that arrived in an import just before (vmctl.cli)
            number = signal.SIGINT
        counted += number != signal.SIGQUIT
        late = number == signal.SIGALRM or (counted > 1 and number != signal.SIGQUIT)
        if number == signal.SIGHUP:
            signal.alarm(GRACE_S)
        send(signal.SIGKILL if late else number)

    taken = [number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in (*taken, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
