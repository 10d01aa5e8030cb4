"""Compute every printed figure and ratio from the plan and the samples only. `bench verify` computes them again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from bench import marginal, questions, statistics
from bench.model import CONTROL, Figure, Plan, Ratio, Sample
from bench.questions import Question
from bench.statistics import ENOUGH, ENOUGH_POINTS, INVALID_BEYOND, Interval

DURABLE = "io"  # the metric in which a guest that beats its host writes into the host's page cache
_PERCENT = {"p95": 95, "p99": 99}
_OWN = "memory.pss_bytes"  # what the processes of one instance use: the lower end of what one more costs

Rounds = dict[int, Sequence[float]]  # round -> its sample's answers to one question, without rounds that have no answer
Ladders = dict[int, Sequence[tuple[float, float]]]


def summarise(plan: Plan, samples: Sequence[Sample]) -> tuple[tuple[Figure, ...], tuple[Ratio, ...]]:
    """Return one figure per question and mode, also if nothing was observed, and the ratios of the modes.

    The last figure is the control's, if the plan has a control. Each pair of modes has a ratio, with the earlier mode
    of the plan as its base, if both have a figure, the base's is above 0, and the statistic is a median or a slope. The
    result depends on the arguments only.
    """
    counted = _counted(samples)
    guests = {one.mode for one in samples if "accelerator" in one.texts}
    figures: list[Figure] = []
    ratios: list[Ratio] = []
    for kind, question in questions.of(plan):
        of_modes = {mode: counted.get((kind, mode), []) for mode in plan.modes}
        known = []
        for mode, found in of_modes.items():
            one = _figure(question, mode, found, _steps(plan, kind, mode), seed(plan, question.key, mode))
            if question.marginal and one.value is not None:
                own = next((figure.value for figure in figures if (figure.key, figure.mode) == (_OWN, mode)), None)
                one = _measurable(one, question, found, own)
            figures.append(one)
            known += [mode] if one.value is not None else []
        for place, base in enumerate(known):
            for mode in known[place + 1 :]:
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
    """Return how many planned samples of a kind in a mode are not warm-ups."""
    return sum((step.kind, step.mode) == (kind, mode) and step.round > 0 for step in plan.steps)


def seed(plan: Plan, *names: str) -> int:
    """Return the seed of one figure's resampling: a different seed per figure, so that they do not share resamples."""
    return (plan.seed + crc32(" ".join(names).encode())) % 2**32


def rounds(question: Question, samples: Sequence[Sample]) -> Rounds:
    """Return the answers of one mode's counted samples to a question, round by round."""
    found = {one.round: question.values(one) for one in samples if one.counts}
    return {number: values for number, values in found.items() if values}


def ladders(question: Question, samples: Sequence[Sample]) -> Ladders:
    """Return the points of one mode's counted samples for a slope. Ladders of one point have no slope: left out."""
    points = question.points or (lambda sample: ())
    found = {one.round: points(one) for one in samples if one.counts}
    return {number: each for number, each in found.items() if len(each) > 1}


def _counted(samples: Sequence[Sample]) -> dict[tuple[str, str], list[Sample]]:
    """Return the samples without warm-ups, with failed ones, by kind and mode, in the order of their rounds."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for one in sorted(samples, key=lambda sample: sample.round):
        if one.round > 0:
            found.setdefault((one.kind, one.mode), []).append(one)
    return found


def _figure(question: Question, mode: str, samples: Sequence[Sample], steps: int, number: int) -> Figure:
    known: dict[str, Any] = {"key": question.key, "mode": mode, "statistic": question.statistic, "unit": question.unit}
    points, found = ladders(question, samples), rounds(question, samples)
    observed = len(points if question.statistic == "slope" else found)
    if not observed:
        errors = [one.error for one in samples if one.error is not None]
        why = errors[0] if errors else "not observed in this mode" if samples else "not measured"
        return Figure(**known, value=None, failures=len(errors), why=why)
    known["failures"] = max(0, steps - observed)
    if question.statistic == "slope":
        return _slope(known, list(points.values()))
    values = [value for each in found.values() for value in each]
    if question.hostwide and (why := marginal.moved(values, question.unit)):
        return Figure(**known, value=None, observations=len(values), why=why)
    spread = statistics.spread(values)
    known.update(spread._asdict(), observations=len(values))
    if question.statistic in _PERCENT:
        percent = _PERCENT[question.statistic]
        value = statistics.percentile(values, percent)
        return Figure(**known, value=value, why=statistics.lacking(percent, len(values)))
    interval = statistics.rounds_interval(list(found.values()), number)
    why = "" if interval else f"an interval needs {ENOUGH} rounds, there are {len(found)}"
    return Figure(**known, value=statistics.median(values), **ends(interval), why=why)


def _measurable(one: Figure, question: Question, samples: Sequence[Sample], own: float | None) -> Figure:
    """Return the figure, without its value if the slope is not the cost of one more instance."""
    points = list(ladders(question, samples).values())
    why = marginal.refused(points, question.unit, own if question.metric == "memory" else None)
    known = {name: getattr(one, name) for name in ("key", "mode", "statistic", "unit", "observations", "failures")}
    return Figure(**known, value=None, why=why) if why else one


def _slope(known: dict[str, Any], points: list[Sequence[tuple[float, float]]]) -> Figure:
    interval, count = statistics.slope_interval(points), sum(map(len, points))
    value = statistics.slope(points)
    why = "" if interval else f"an interval needs {ENOUGH_POINTS} points, there are {count}"
    return Figure(**known, value=value, **ends(interval), observations=count, why=why)


def _ratio(
    question: Question, pair: tuple[str, str], samples: tuple[Sequence[Sample], Sequence[Sample]], number: int
) -> Ratio | None:
    """Return the ratio of two modes over the rounds in which both were observed.

    None if it cannot be computed, or means nothing: the modes do different things, did not run as many instances, or
    the value of the base is sometimes 0.
    """
    if not question.compared or (question.metric == "density" and _instances(samples[0]) != _instances(samples[1])):
        return None
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
    if above < 0 or min(values[1]) <= 0:
        return None
    interval = statistics.rounds_ratio_interval(ours, theirs, number)
    return _made(question, pair, above / below, interval, statistics.cliffs_delta(*values))


def _instances(samples: Sequence[Sample]) -> set[float]:
    """Return how many instances ran at once."""
    return {one.values["instances"] for one in samples if one.counts and "instances" in one.values}


def _slopes_ratio(
    question: Question, pair: tuple[str, str], samples: tuple[Sequence[Sample], Sequence[Sample]]
) -> Ratio | None:
    points = [list(ladders(question, each).values()) for each in samples]
    above, below = map(statistics.slope, points)
    if above is None or below is None or above < 0 or below <= 0:
        return None
    each = [[one for one in (statistics.slope([ladder]) for ladder in side) if one is not None] for side in points]
    interval = statistics.slope_ratio_interval(points[0], points[1])
    return _made(question, pair, above / below, interval, statistics.cliffs_delta(*each))


def _made(question: Question, pair: tuple[str, str], ratio: float, interval: Interval | None, delta: float) -> Ratio:
    mode, base = pair
    verdict = statistics.verdict(interval)
    return Ratio(key=question.key, mode=mode, base=base, ratio=ratio, **ends(interval), delta=delta, verdict=verdict)


def _valid(one: Ratio, question: Question, guests: set[str]) -> Ratio:
    """Return the ratio, marked as invalid if a guest's disk is faster than that of a mode on the host's kernel."""
    if question.metric != DURABLE or (one.mode in guests) == (one.base in guests):
        return one
    guest = one.ratio if one.mode in guests else math.inf if one.ratio == 0 else 1 / one.ratio
    beats = guest < 1 - INVALID_BEYOND if question.less_is_better else guest > 1 + INVALID_BEYOND
    values = {name: getattr(one, name) for name in one.__struct_fields__}
    return Ratio(**{**values, "verdict": "invalid"}) if beats else one


def ends(interval: Interval | None) -> dict[str, Any]:
    """Return the ends of an interval for a file: JSON knows no infinity."""
    if interval is None:
        return {"low": None, "high": None}
    return {name: end if math.isfinite(end) else None for name, end in interval._asdict().items()}
