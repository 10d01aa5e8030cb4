"""Signals in texts: `stop_signal:` of a workload, STOPSIGNAL of an image, `kill --signal`."""

from __future__ import annotations

from vmctl.errors import SpecError
from vmctl.light import re, signal

_HINT = "`kill -l` lists them"


_REAL_TIME = signal.SIGRTMAX - signal.SIGRTMIN


def number(text: str) -> int:
    """Return the number of a signal: 3, QUIT, SIGQUIT, RTMIN+3, RTMAX-1. Raises ValueError with what was expected.

    Real-time signals begin at 34 (signal(7)): the C library keeps the two below to itself.
    """
    plain = text.strip().upper()
    if plain.isascii() and plain.isdigit():
        found = int(plain) if len(plain) < 4 else 0
        valid = 0 < found <= signal.SIGRTMAX and found not in range(32, signal.SIGRTMIN)
    else:
        found = _named(plain.removeprefix("SIG"))
        valid = found > 0
    if not valid:
        raise ValueError(f"a signal such as SIGQUIT, RTMIN+3 or 3, not {text[:40]!r}")
    return found


def _named(name: str) -> int:
    """Return the number of a signal whose name has no SIG, 0 for an unknown name."""
    if match := re.fullmatch(r"RTM(?:IN(?:\+([0-9]{1,2}))?|AX(?:-([0-9]{1,2}))?)", name):
        from_first = int(match[1] or 0) if name.startswith("RTMIN") else _REAL_TIME - int(match[2] or 0)
        return signal.SIGRTMIN + from_first if 0 <= from_first <= _REAL_TIME else 0
    return getattr(signal, f"SIG{name}", 0) if name.isalnum() else 0


def parse(text: str) -> int:
    """Return the number of a signal that a user has given. Raises SpecError."""
    try:
        return number(text)
    except ValueError:
        raise SpecError(f"there is no signal {text[:40]}", hint=_HINT) from None


def name(signum: int) -> str:
    """Return the name of a signal, such as SIGQUIT or SIGRTMIN+3."""
    if signal.SIGRTMIN < signum < signal.SIGRTMAX:
        return f"SIGRTMIN+{signum - signal.SIGRTMIN}"
    from signal import Signals

    return Signals(signum).name
