"""Every figure and ratio that is printed, from the plan and the samples alone: what `bench verify` computes again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from bench import questions, statistics
from bench.model import CONTROL, Figure, Plan, Ratio, Sample
from bench.questions import Question
from bench.statistics import ENOUGH, ENOUGH_POINTS, INVALID_BEYOND, Interval

DURABLE = "io"  # the metric in which a guest that beats its host writes into the host's page cache
_PERCENT = {"p95": 95, "p99": 99}

Rounds = dict[int, Sequence[float]]  # round -> what its sample says to one question, where it says anything
Ladders = dict[int, Sequence[tuple[float, float]]]


def summarise(plan: Plan, samples: Sequence[Sample]) -> tuple[tuple[Figure, ...], tuple[Ratio, ...]]:
    """Return one figure per question and mode, also where nothing was observed, and the ratios of the modes.

    The last figure is the control's, where the plan has one. Depends on its arguments only. A ratio is there for every
    pair of modes, the earlier one of the plan being the base, where both figures are above 0 and the statistic is a
    median or a slope.
    """
    counted = _counted(samples)
    guests = {one.mode for one in samples if "accelerator" in one.texts}
    figures: list[Figure] = []
    ratios: list[Ratio] = []
    for kind, question in questions.of(plan):
        of_modes = {mode: counted.get((kind, mode), []) for mode in plan.modes}
        for mode, found in of_modes.items():
            figures.append(_figure(question, mode, found, _steps(plan, kind, mode), seed(plan, question.key, mode)))
        for place, base in enumerate(plan.modes):
            for mode in plan.modes[place + 1 :]:
                number = seed(plan, question.key, mode, base)
                found_ratio = _ratio(question, (mode, base), (of_modes[mode], of_modes[base]), number)
                if found_ratio is not None:
                    ratios.append(_valid(found_ratio, question, guests))
    if steps := _steps(plan, CONTROL, ""):
        (question,) = questions.questions(CONTROL)
        number = seed(plan, question.key)
        figures.append(_figure(question, "", counted.get((CONTROL, ""), []), steps, number))
    return tuple(figures), tuple(ratios)


def _steps(plan: Plan, kind: str, mode: str) -> int:
    """Return how many samples of a kind in a mode were to count."""
    return sum((step.kind, step.mode) == (kind, mode) and step.round > 0 for step in plan.steps)


def seed(plan: Plan, *names: str) -> int:
    """Return the seed of one figure's resampling: another one for each, so that no draw of rounds is in them all."""
    return (plan.seed + crc32(" ".join(names).encode())) % 2**32


def rounds(question: Question, samples: Sequence[Sample]) -> Rounds:
    """Return what counted samples of one mode say to a question, round by round."""
    found = {one.round: question.values(one) for one in samples if one.counts}
    return {number: values for number, values in found.items() if values}


def ladders(question: Question, samples: Sequence[Sample]) -> Ladders:
    """Return the points that counted samples of one mode give for a slope; a ladder of one point has none."""
    points = question.points or (lambda sample: ())
    found = {one.round: points(one) for one in samples if one.counts}
    return {number: each for number, each in found.items() if len(each) > 1}


def _counted(samples: Sequence[Sample]) -> dict[tuple[str, str], list[Sample]]:
    """Return the samples that count, failed ones included, by kind and mode, in the order of their rounds."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for one in sorted(samples, key=lambda sample: sample.round):
        if one.round > 0:
            found.setdefault((one.kind, one.mode), []).append(one)
    return found


def _figure(question: Question, mode: str, samples: Sequence[Sample], steps: int, number: int) -> Figure:
    told: dict[str, Any] = {"key": question.key, "mode": mode, "statistic": question.statistic, "unit": question.unit}
    points, found = ladders(question, samples), rounds(question, samples)
    observed = len(points if question.statistic == "slope" else found)
    if not observed:
        errors = [one.error for one in samples if one.error is not None]
        why = errors[0] if errors else "not observed in this mode" if samples else "not measured"
        return Figure(**told, value=None, failures=len(errors), why=why)
    told["failures"] = max(0, steps - observed)
    if question.statistic == "slope":
        return _slope(told, list(points.values()))
    values = [value for each in found.values() for value in each]
    spread = statistics.spread(values)
    told.update(spread._asdict(), observations=len(values))
    if question.statistic in _PERCENT:
        percent = _PERCENT[question.statistic]
        value = statistics.percentile(values, percent)
        return Figure(**told, value=value, why=statistics.lacking(percent, len(values)))
    interval = statistics.rounds_interval(list(found.values()), number)
    why = "" if interval else f"an interval needs {ENOUGH} rounds, there are {len(found)}"
    return Figure(**told, value=statistics.median(values), **ends(interval), why=why)


def _slope(told: dict[str, Any], points: list[Sequence[tuple[float, float]]]) -> Figure:
    interval, count = statistics.slope_interval(points), sum(map(len, points))
    value = statistics.slope(points)
    why = "" if interval else f"an interval needs {ENOUGH_POINTS} points, there are {count}"
    return Figure(**told, value=value, **ends(interval), observations=count, why=why)


def _ratio(
    question: Question, pair: tuple[str, str], samples: tuple[Sequence[Sample], Sequence[Sample]], number: int
) -> Ratio | None:
    """Return the ratio of two modes over the rounds in which both were observed, None where there is none."""
    if question.statistic == "slope":
        return _slopes_ratio(question, pair, samples)
    if question.statistic != "median":
        return None
    first, second = (rounds(question, each) for each in samples)
    common = [number for number in first if number in second]
    if not common:
        return None
    ours, theirs = [first[number] for number in common], [second[number] for number in common]
    values = [[value for each in side for value in each] for side in (ours, theirs)]
    above, below = map(statistics.median, values)
    if above < 0 or below <= 0:
        return None
    interval = statistics.rounds_ratio_interval(ours, theirs, number)
    return _told(question, pair, above / below, interval, statistics.cliffs_delta(*values))


def _slopes_ratio(
    question: Question, pair: tuple[str, str], samples: tuple[Sequence[Sample], Sequence[Sample]]
) -> Ratio | None:
    points = [list(ladders(question, each).values()) for each in samples]
    above, below = map(statistics.slope, points)
    if above is None or below is None or above < 0 or below <= 0:
        return None
    each = [[one for one in (statistics.slope([ladder]) for ladder in side) if one is not None] for side in points]
    interval = statistics.slope_ratio_interval(points[0], points[1])
    return _told(question, pair, above / below, interval, statistics.cliffs_delta(*each))


def _told(question: Question, pair: tuple[str, str], ratio: float, interval: Interval | None, delta: float) -> Ratio:
    mode, base = pair
    verdict = statistics.verdict(interval)
    return Ratio(key=question.key, mode=mode, base=base, ratio=ratio, **ends(interval), delta=delta, verdict=verdict)


def _valid(one: Ratio, question: Question, guests: set[str]) -> Ratio:
    """Return the ratio, marked invalid where a guest's disk beats that of a mode without a kernel of its own."""
    if question.metric != DURABLE or (one.mode in guests) == (one.base in guests):
        return one
    guest = one.ratio if one.mode in guests else math.inf if one.ratio == 0 else 1 / one.ratio
    beats = guest < 1 - INVALID_BEYOND if question.less_is_better else guest > 1 + INVALID_BEYOND
    values = {name: getattr(one, name) for name in one.__struct_fields__}
    return Ratio(**{**values, "verdict": "invalid"}) if beats else one


def ends(interval: Interval | None) -> dict[str, Any]:
    """Return the ends as they stand in files: JSON knows no infinity."""
    if interval is None:
        return {"low": None, "high": None}
    return {name: end if math.isfinite(end) else None for name, end in interval._asdict().items()}
