"""Medians and how sure they are: few numbers, each with the conditions under which it may be printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")

ENOUGH = 30  # samples; below, an interval would promise what it cannot keep
RESAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """A percentile bootstrap interval (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13)."""

    low: float
    high: float


def median_interval(values: Sequence[float], seed: int = 0) -> Interval | None:
    """Return the 95 % interval of the median, None for fewer than 30 values."""
    return _bootstrap(values, median, seed)


def ratio_interval(pairs: Sequence[tuple[float, float]], seed: int = 0) -> Interval | None:
    """Return the 95 % interval of median/median; whole rounds are drawn, since what disturbs a round disturbs both."""
    return _bootstrap(pairs, ratio, seed)


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the median of the first values divided by that of the second."""
    return median(first for first, _ in pairs) / median(second for _, second in pairs)


def _bootstrap(values: Sequence[_T], statistic: Callable[[Sequence[_T]], float], seed: int) -> Interval | None:
    if len(values) < ENOUGH:
        return None
    random = Random(seed)
    drawn = sorted(statistic(random.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - LEVEL) / 2
    return Interval(drawn[round(tail * RESAMPLES)], drawn[round((1 - tail) * RESAMPLES) - 1])
