"""The size of a terminal, for small processes: it imports only what they need. See ioctl_tty(2)."""

from __future__ import annotations

import fcntl
import termios

_MOST = 0xFFFF


def set_size(master: int, columns: int, lines: int, redraw: bool = False) -> None:
    """Give a terminal a size; with `redraw` it changes in any case, so that programs draw their screen anew.

    Errors are ignored: no process may have it open any more.
    """
    for more in (1, 0) if redraw else (0,):
        try:
            fcntl.ioctl(master, termios.TIOCSWINSZ, _pack(lines + more, columns))
        except OSError:
            pass


def _pack(lines: int, columns: int) -> bytes:
    """Return a struct winsize."""
    return b"".join(min(value, _MOST).to_bytes(2, "little") for value in (lines, columns, 0, 0))
