"""Marks on the host's monotonic clock: the time at which each step of a start or a stop was observed.

The names are those of the measurement rules: T0 start requested, T1 the process exists, T4 our init runs,
T5 first byte of the workload's output, T6 first correct answer, T7 stop requested, T8 process gone, T9 all released.
A mark that was not observed is absent, never estimated. The others are the ends of phases: see vmctl/phases.py.
"""

from __future__ import annotations

from time import monotonic_ns

from vmctl import trace
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timeline:
    """Marks in nanoseconds of CLOCK_MONOTONIC; the first observation of each is kept."""

    def __init__(self, marks_ns: dict[str, int] | None = None) -> None:
        self.marks_ns: dict[str, int] = dict(marks_ns or {})
        self.marked: Callable[[], None] | None = None  # called after each new mark

    def mark(self, name: str, at_ns: int | None = None) -> None:
        """Record `name` with the time now or at `at_ns`; a second observation changes nothing."""
        if name not in self.marks_ns:
            self.marks_ns[name] = monotonic_ns() if at_ns is None else at_ns
            if trace.on:
                trace.comment(f"mark {name}", self.marks_ns[name])
            if self.marked is not None:
                self.marked()

    def between_s(self, first: str, last: str) -> float | None:
        """Return the seconds between two marks, or None if one was not observed."""
        if first not in self.marks_ns or last not in self.marks_ns:
            return None
        return (self.marks_ns[last] - self.marks_ns[first]) / 1e9
