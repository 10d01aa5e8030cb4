"""Signals that end a command of vmctl: an exception, so that what it has made is undone."""

from __future__ import annotations

from vmctl.light import signal
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_S = 0.005  # until a signal is tried again


def end(signum: int, frame: FrameType | None) -> None:
    """Turn the signal into an exception so that clean-up runs; ignore further signals until it is done."""
    if _drops_exceptions(frame):
        signal.signal(signal.SIGALRM, lambda _, later: end(signum, later))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        return
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + signum)


def _drops_exceptions(frame: FrameType | None) -> bool:
    """Return whether the code that was interrupted may be called by C code that drops its exceptions.

    msgspec does, when it imports datetime (and crashes at its first use without it) and when it looks up a type.
    """
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib") or file.endswith("/typing.py"):
            return True
        frame = frame.f_back
    return False
