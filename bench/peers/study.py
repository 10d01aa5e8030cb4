"""Rounds of contenders in random order, and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

from bench.peers.containers import Contender
from bench.schedule import rounds
from vmctl.errors import VmctlError


class Study(NamedTuple):
    """One question, and every contender's answers in seconds, round by round; None for a failure."""

    title: str
    seconds: dict[str, list[float | None]]
    failures: dict[str, str]  # contender -> the reason of its last failure

    def known(self, name: str) -> list[float]:
        """Return one contender's seconds, without the rounds in which it failed."""
        return [value for value in self.seconds[name] if value is not None]

    def pairs(self, first: str, second: str) -> list[tuple[float, float]]:
        """Return two contenders' seconds of the rounds in which neither failed."""
        both = zip(self.seconds[first], self.seconds[second], strict=True)
        return [(a, b) for a, b in both if a is not None and b is not None]

    def median_s(self, name: str) -> float | None:
        """Return the median of a contender, None if it never succeeded."""
        return median(self.known(name)) if self.known(name) else None


def study(
    title: str, contenders: Mapping[str, Contender], runs: int, seed: int, progress: Callable[[str], None]
) -> Study:
    """Time every contender once per round, after one round that is discarded."""
    names = list(contenders)
    result = Study(title, {name: [None] * runs for name in names}, {})
    for number, turn in enumerate((tuple(names), *rounds(names, runs, seed))):
        for name in turn:
            progress(f"{title}: round {number} of {runs}: {name}")
            try:
                seconds = contenders[name]()
            except VmctlError as error:
                result.failures[name] = str(error)
                continue
            if number:
                result.seconds[name][number - 1] = seconds
    return result
