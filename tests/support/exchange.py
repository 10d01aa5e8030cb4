"""Two names that a local attacker exchanges at the moment when root has opened one of them."""

import ctypes
import os
import signal
import time
from contextlib import contextmanager

_RENAME_EXCHANGE, _AT_FDCWD = 2, -100  # renameat2(2)
_IN_OPEN = 0x20  # inotify(7)
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def exchanged_when_opened(folder, other, after_s=0.0):
    """Exchange two paths once, in another process, when the folder has been opened; undo it at the end of the block."""
    names = os.fsencode(folder), os.fsencode(other)
    events = _libc.inotify_init()
    assert _libc.inotify_add_watch(events, names[0], _IN_OPEN) > 0
    pid = os.fork()
    if pid == 0:
        os.read(events, 4096)
        time.sleep(after_s)
        _exchange(names)
        os._exit(0)
    try:
        yield
    finally:
        os.close(events)
        os.kill(pid, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            _exchange(names)


@contextmanager
def exchanged_all_the_time(folder, other):
    """Exchange two paths again and again, in another process, as long as the block runs."""
    names = os.fsencode(folder), os.fsencode(other)
    pid = os.fork()
    if pid == 0:
        while True:
            _exchange(names)
            time.sleep(0.0002)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _exchange(names):
    _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
