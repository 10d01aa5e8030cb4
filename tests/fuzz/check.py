"""One target, and one input for it."""

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

from vmctl.errors import VmctlError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLOW_S = 10.0  # most inputs take less than a millisecond
PACKAGES = ("vmctl", "vmm", "containers", "images", "bench")


class Target(NamedTuple):
    """A parser, inputs that it accepts, and words that mean something to it."""

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    allowed: tuple[type[BaseException], ...]
    cost: int  # how many inputs of the cheapest target take as long as one of this


TARGETS: dict[str, Target] = {}


class SlowError(Exception):
    """An input takes too long."""


def target(name, *seeds, words=(), allowed=(), cost=1):
    """Register a function of bytes as a parser. `allowed`: documented exceptions in addition to vmctl's own."""

    def register(run):
        encoded = tuple(seed.encode() if isinstance(seed, str) else seed for seed in seeds)
        TARGETS[name] = Target(name, run, encoded, tuple(map(str.encode, words)), (VmctlError, *allowed), cost)
        return run

    return register


def fault(target, data):
    """Return the kind of an input's uncaught exception and its traceback, or None."""
    try:
        with _limited():
            target.run(data)
    except target.allowed:
        return None
    except Exception as error:
        return _kind(error), traceback.format_exc()
    return None


@contextmanager
def _limited():
    def late(*_):
        raise SlowError(f"not finished after {SLOW_S:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SLOW_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _kind(error):
    """Return the type of an exception and the last line of our code that it passed."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.relpath(frame.filename, ROOT).startswith(PACKAGES)
    ]
    place = f"{os.path.relpath(frames[-1].filename, ROOT)}:{frames[-1].name}" if frames else "the harness"
    return f"{type(error).__name__} in {place}"
