"""Medians, slopes and ratios with their intervals, and the conditions under which each may be printed.

Everything here depends on its arguments only: the random draws come from numpy's RandomState, whose stream is frozen
(NEP 19). So a result gives the same digits when it is computed again years later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from numpy import float64, int64
    from numpy.typing import NDArray

ENOUGH = 30  # rounds; with fewer, the interval of a median is too narrow
ENOUGH_FOR = {5: 100, 95: 100, 99: 1000}  # percentile -> observations; five or ten of them are then beyond it
ENOUGH_POINTS = 10  # of a slope: from here on the normal distribution approximates that of Kendall's S
ENOUGH_FOR_OUTLIERS = 8  # values; the middle of fewer does not show which of them are far from it
RESAMPLES = 2000
LEVEL = 0.95
BAND = 0.03  # a ratio within 0.97 to 1.03 counts as no difference
OUTLIER = 3.0  # scaled median absolute deviations: Leys and others, doi:10.1016/j.jesp.2013.03.013
TO_SIGMA = 1.4826  # from the median absolute deviation to sigma, for a normal distribution
INVALID_BEYOND = 0.05  # no guest is so much faster than the host's own disk
_AT_ONCE = 4_000_000  # numbers in memory while resampling

# what `verdict` returns -> its text in tables and reports
VERDICTS = {
    "more": "more",
    "less": "less",
    "equal": "equal within 3 %",
    "small": "a difference, below 3 %",
    "undecided": "no difference shown",
    "few": "too few rounds",
    "invalid": "invalid: cache or durability differs",
}

Pairs = Sequence[tuple[float, float]]
Points = Sequence[tuple[float, float]]


class Interval(NamedTuple):
    """The range of a figure with a probability of 95 % unless noted otherwise."""

    low: float
    high: float


class Spread(NamedTuple):
    """How observations scatter; None for a percentile that needs more observations."""

    minimum: float
    p5: float | None
    p95: float | None
    mad: float
    outliers: int


def median(values: Sequence[float]) -> float:
    """Return the median."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def deviation(values: Sequence[float]) -> float:
    """Return the median absolute deviation from the median, unscaled."""
    middle = median(values)
    return median([abs(value - middle) for value in values])


def outliers(values: Sequence[float]) -> list[bool]:
    """Return which values are more than 3 scaled median absolute deviations from the median. They are never removed."""
    if not values:
        return []
    middle, most = median(values), OUTLIER * TO_SIGMA * deviation(values)
    return [abs(value - middle) > most for value in values]


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return a percentile (type 7 of Hyndman and Fan 1996, as in numpy), None for too few values: see `lacking`."""
    if lacking(percent, len(values)):
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (place - below))


def lacking(percent: int, count: int) -> str:
    """Return why a percentile of `count` observations may not be printed, "" if it may."""
    needed = ENOUGH_FOR[percent]
    return "" if count >= needed else f"p{percent} needs {needed} observations, there are {count}"


def spread(values: Sequence[float]) -> Spread:
    """Return how values scatter; there must be at least one."""
    p5, p95 = percentile(values, 5), percentile(values, 95)
    return Spread(
        min(values), p5, p95, deviation(values), sum(outliers(values)) if len(values) >= ENOUGH_FOR_OUTLIERS else 0
    )


def cliffs_delta(first: Sequence[float], second: Sequence[float]) -> float:
    """Return P(first > second) - P(first < second) over all pairs, -1 to 1 (Cliff 1993, Psychological Bulletin 114)."""
    import numpy as np

    ordered = np.sort(np.asarray(second, float))
    smaller = np.searchsorted(ordered, first, "left").sum()
    not_greater = np.searchsorted(ordered, first, "right").sum()
    pairs = len(first) * len(second)
    return float(smaller - (pairs - not_greater)) / pairs


# Medians, by bootstrap


def median_interval(values: Sequence[float], seed: int = 0) -> Interval | None:
    """Return the 95 % interval of the median, None for fewer than 30 values."""
    return rounds_interval([[value] for value in values], seed)


def rounds_interval(rounds: Sequence[Sequence[float]], seed: int = 0) -> Interval | None:
    """Return the 95 % interval of the median of all values, None for fewer than 30 rounds, each with some values.

    This is a percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13) that draws whole
    rounds: a thousand answers of one server are less evidence than those of a thousand servers.
    """
    if len(rounds) < ENOUGH:
        return None
    return _middle(_medians(rounds, _draw(len(rounds), seed)), LEVEL)


def ratio(pairs: Pairs) -> float:
    """Return the median of the first values divided by that of the second."""
    return median([first for first, _ in pairs]) / median([second for _, second in pairs])


def ratio_interval(pairs: Pairs, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of median/median. It draws whole rounds: a disturbance affects both sides of a round."""
    return rounds_ratio_interval([[first] for first, _ in pairs], [[second] for _, second in pairs], seed)


def rounds_ratio_interval(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], seed: int = 0
) -> Interval | None:
    """Return the 95 % interval of median/median over the same rounds; see `rounds_interval`. An end may be infinite."""
    if len(first) < ENOUGH:
        return None
    drawn = _draw(len(first), seed)
    return _middle(_divided(_medians(first, drawn), _medians(second, drawn)), LEVEL)


def difference_interval(pairs: Pairs, seed: int = 0) -> Interval | None:
    """Return the 95 % interval of median - median, None for fewer than 30 rounds, each a pair."""
    if len(pairs) < ENOUGH:
        return None
    drawn = _draw(len(pairs), seed)
    first, second = (_medians([[pair[side]] for pair in pairs], drawn) for side in (0, 1))
    return _middle(first - second, LEVEL)


def change_interval(after: Sequence[Sequence[float]], before: Sequence[Sequence[float]], seed: int) -> Interval | None:
    """Return the 95 % interval of median/median of two runs. Rounds are not paired: each run is drawn separately."""
    if min(len(after), len(before)) < ENOUGH:
        return None
    drawn = _draw(len(after), seed), _draw(len(before), seed + 1)
    return _middle(_divided(_medians(after, drawn[0]), _medians(before, drawn[1])), LEVEL)


def ratios_change_interval(
    after: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]],
    before: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]],
    seed: int,
) -> Interval | None:
    """Return the 95 % interval of (median/median)/(median/median): the ratio of two modes in one run and in another.

    Each run is drawn separately, in whole rounds.
    """
    if min(len(after[0]), len(before[0])) < ENOUGH:
        return None
    found = []
    for number, (first, second) in enumerate((after, before)):
        drawn = _draw(len(first), seed + number)
        found.append(_divided(_medians(first, drawn), _medians(second, drawn)))
    return _middle(_divided(found[0], found[1]), LEVEL)


def _draw(count: int, seed: int) -> NDArray[int64]:
    """Return the number of times each round is drawn, one row per resample."""
    import numpy as np

    drawn = np.random.RandomState(seed % 2**32).randint(0, count, (RESAMPLES, count))
    rows = np.arange(RESAMPLES)[:, None] * count
    return np.bincount((drawn + rows).ravel(), minlength=RESAMPLES * count).reshape(RESAMPLES, count)


def _medians(rounds: Sequence[Sequence[float]], drawn: NDArray[int64]) -> NDArray[float64]:
    """Return the median of every resample: a value counts as often as its round was drawn."""
    import numpy as np

    values = np.concatenate([np.asarray(one, float) for one in rounds])
    order = np.argsort(values, kind="stable")
    values, owner = values[order], np.repeat(np.arange(len(rounds)), [len(one) for one in rounds])[order]
    rows = max(1, _AT_ONCE // len(values))
    found = []
    for start in range(0, len(drawn), rows):
        upto = np.cumsum(drawn[start : start + rows][:, owner], axis=1)
        total = upto[:, -1:]
        lower, upper = (upto > (total - 1) // 2).argmax(axis=1), (upto > total // 2).argmax(axis=1)
        found.append((values[lower] + values[upper]) / 2)
    return np.concatenate(found)


def _divided(first: NDArray[float64], second: NDArray[float64]) -> NDArray[float64]:
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        return first / second


def _middle(drawn: NDArray[float64], level: float) -> Interval:
    """Return the interval in the middle of the resamples that contains the share `level` of them."""
    import numpy as np

    ordered, tail = np.sort(drawn), (1 - level) / 2
    return Interval(float(ordered[round(tail * len(drawn))]), float(ordered[round((1 - tail) * len(drawn)) - 1]))


# Slopes, by ranks


def slope(ladders: Sequence[Points]) -> float | None:
    """Return the median slope over all pairs of points of the same ladder, None if no two points differ in x.

    For one ladder this is the estimator of Theil and Sen; for several that of Hirsch, Slack and Smith
    (doi:10.1029/WR018i001p00107), which does not depend on the level at which each ladder begins.
    """
    steps = _slopes(ladders)
    return median(steps) if steps else None


def tau(ladders: Sequence[Points]) -> float:
    """Return Kendall's tau of ladders: the share of pairs of points that rise, minus the share of those that fall."""
    steps = _slopes(ladders)
    return (sum(step > 0 for step in steps) - sum(step < 0 for step in steps)) / len(steps) if steps else 0.0


def slope_interval(ladders: Sequence[Points], level: float = LEVEL) -> Interval | None:
    """Return the interval of `slope` after Sen (doi:10.1080/01621459.1968.10480934), None for fewer than 10 points.

    It is based on the variance of Kendall's S, the sum over the ladders; ladders are too few for a bootstrap.
    It assumes independent deviations of the points; if they add up from step to step, it is too narrow.
    """
    steps = sorted(_slopes(ladders))
    if not steps or sum(map(len, ladders)) < ENOUGH_POINTS:
        return None
    variance = sum(_variance(points) for points in ladders)
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
    low, high = round((len(steps) - reach) / 2), round((len(steps) + reach) / 2)
    return Interval(steps[max(0, low - 1)], steps[min(high, len(steps) - 1)])


def _slopes(ladders: Sequence[Points]) -> list[float]:
    return [
        (y2 - y1) / (x2 - x1)
        for points in ladders
        for place, (x1, y1) in enumerate(points)
        for x2, y2 in points[place + 1 :]
        if x2 != x1
    ]


def _variance(points: Points) -> float:
    """Return the variance of Kendall's S of one ladder, corrected for ties in x and in y (Kendall 1970, chapter 4)."""
    count, ties = len(points), 0
    for side in zip(*points, strict=True):
        repeats = [side.count(one) for one in set(side)]
        ties += sum(n * (n - 1) * (2 * n + 5) for n in repeats)
    return max(0, count * (count - 1) * (2 * count + 5) - ties) / 18


def slope_ratio_interval(first: Sequence[Points], second: Sequence[Points]) -> Interval | None:
    """Return an interval of slope/slope with a probability of at least 95 %, None if a slope has no interval.

    Each slope is in its interval of 97.5 %, so both are with at least 95 % (Bonferroni), and the ratio is between the
    ratios of their ends. This interval is somewhat too wide. It is unbounded if a slope may be 0.
    """
    level = (1 + LEVEL) / 2
    above, below = slope_interval(first, level), slope_interval(second, level)
    if above is None or below is None:
        return None
    if min(*above, *below) <= 0:
        return Interval(0.0, math.inf)
    return Interval(above.low / below.high, above.high / below.low)


# Verdicts


def verdict(interval: Interval | None, band: float = BAND) -> str:
    """Return a key of VERDICTS for the 95 % interval of a ratio.

    - `more`, `less`: it excludes 1 and is not wholly within the band. The two differ.
    - `small`: it excludes 1 and is wholly within the band. The two differ, but too little to matter.
    - `equal`: it includes 1 and is wholly within the band. Any difference is too small to matter.
    - `undecided`: it includes 1 and reaches beyond the band. Neither a difference nor equality is shown.
    - `few`: it is None.

    The interval is compared with the band, not the ratio itself: a true difference as large as the band is estimated
    below it half of the time, even with any number of rounds, and so could be found only half of the time.
    """
    if interval is None:
        return "few"
    within = 1 - band <= interval.low and interval.high <= 1 + band
    if not (interval.low > 1 or interval.high < 1):  # also true for NaN (0/0), which shows nothing
        return "equal" if within else "undecided"
    if within:
        return "small"
    return "more" if interval.low > 1 else "less"


def runs_needed(pairs: Pairs, seed: int = 0, difference: float = BAND, power: float = 0.95) -> int | None:
    """Return how many rounds would show a difference of 3 % with 95 % probability, None for fewer than 10 rounds.

    The observed rounds are drawn again 2000 times, which shows how the ratio scatters. A difference is found if the
    lower end of its interval is above 1. So two parts of the scatter have to fit between 1 and 1.03: the one below the
    ratio up to the interval's end, and the one for the wanted probability. Both shrink with the root of the number of
    rounds. If the ratio scatters down to 0, the result is None, too.
    """
    import numpy as np

    if len(pairs) < ENOUGH_POINTS:
        return None
    drawn = _draw(len(pairs), seed)
    medians = [_medians([[pair[side]] for pair in pairs], drawn) for side in (0, 1)]
    ratios = _divided(medians[0], medians[1]) / ratio(pairs)
    if not np.all(np.isfinite(ratios)) or np.any(ratios <= 0):
        return None
    scatter = np.log(ratios)
    beyond = abs(_middle(scatter, LEVEL).low) + abs(_middle(scatter, 2 * power - 1).low)
    return max(ENOUGH, math.ceil(len(pairs) * (beyond / math.log(1 + difference)) ** 2))
