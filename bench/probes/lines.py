"""The workload's output, line by line, each with the moment at which the host saw it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from vmctl.backend import Watch
from vmctl.errors import DeadlineError, VmctlError
from vmctl.logs.logfile import LogReader
from vmctl.readiness import tail, wait_until


class Span(NamedTuple):
    """The time between a line "begin NAME" and the line "end NAME COUNT", and the count."""

    seconds: float
    times: int


def follow(watch: Watch, until: str, timeout_s: float) -> list[tuple[int, str]]:
    """Wait for a line that begins with `until`; return the lines so far, with the moments the host saw them.

    Moments are in nanoseconds on CLOCK_MONOTONIC; each write to the workload's log wakes this process. Raises
    DeadlineError after `timeout_s`, VmctlError if the workload ends before.
    """
    inst = watch.inst
    found = _Lines(inst.stdout_log)

    def arrived() -> bool:
        found.read()  # first, since it takes the time
        if found.has(until):
            return True
        running = watch.alive()
        watch.observe()
        if not running and not found.read():
            raise _ended(watch, until)
        return found.has(until)

    if not wait_until(arrived, watch, timeout_s):
        raise DeadlineError(f"{inst.name} did not write {until!r} within {timeout_s:g} s", detail=tail(inst))
    return found.lines


def spans(lines: Sequence[tuple[int, str]]) -> dict[str, Span]:
    """Return NAME -> the span between its lines "begin NAME" and "end NAME COUNT", by the host's clock."""
    found, begun_ns = {}, {}
    for at_ns, line in lines:
        word, _, rest = line.partition(" ")
        name, _, count = rest.partition(" ")
        if word == "begin":
            begun_ns[name] = at_ns
        elif word == "end" and name in begun_ns:
            found[name] = Span((at_ns - begun_ns[name]) / 1e9, int(count or 1))
    return found


class _Lines:
    """The complete lines of a growing file."""

    def __init__(self, path: str) -> None:
        self.lines: list[tuple[int, str]] = []
        self._log = LogReader(path)
        self._rest = b""
        self._looked_at = 0

    def read(self) -> bool:
        """Read what has been added; return whether anything has."""
        data = b"".join(iter(self._log.read, b""))
        if not data:
            return False
        at_ns = time.monotonic_ns()
        *whole, self._rest = (self._rest + data).split(b"\n")
        self.lines += [(at_ns, line.decode(errors="replace")) for line in whole]
        return True

    def has(self, begin: str) -> bool:
        """Return whether a line begins with `begin`; each line is checked once."""
        new, self._looked_at = self.lines[self._looked_at :], len(self.lines)
        return any(line.startswith(begin) for _, line in new)


def _ended(watch: Watch, until: str) -> VmctlError:
    inst, result = watch.inst, watch.result()
    how = f" with code {result.code} ({result.source})" if result else ""
    return VmctlError(f"{inst.name} ended{how} before it wrote {until!r}", detail=tail(inst))
