"""Compare two results: what changed from the first to the second, and whether they are comparable at all.

Values are compared only if host and accelerator are the same. Results of different hosts can be compared by the ratios
between the modes, each computed within one result. An emulated guest is never compared with a virtualised one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench import machine, statistics, summary
from bench.model import CONTROL, Plan, Result, Sample
from bench.questions import KINDS, Question, asked, is_service, questions
from bench.statistics import BAND, Interval
from vmctl.errors import SpecError
from vmctl.records import UnreadableError
from vmctl.spec.workload import Workload

DENSITY = "density"  # its figures depend on the planned number of instances


class Change(NamedTuple):
    """How one figure changed, or with a `base` one ratio of two modes: `ratio` is after/before."""

    key: str
    title: str
    unit: str  # see bench.model.Figure; "ratio" for a ratio
    mode: str
    base: str
    before: float
    after: float
    ratio: float
    low: float | None  # 95 %
    high: float | None
    delta: float | None  # Cliff's delta, -1 to 1; none for ratios
    verdict: str  # a key of bench.statistics.VERDICTS
    less_is_better: bool
    headline: bool


def compare(before: Result, after: Result, *, ratios: bool = False, other_workload: bool = False) -> list[Change]:
    """Return how every figure that both results have changed, or every ratio between two modes.

    Raises SpecError for results that may not be compared.
    """
    refuse(before, after, ratios=ratios, other_workload=other_workload)
    modes = [mode for mode in before.plan.modes if mode in after.plan.modes]
    changes: list[Change | None] = []
    for question in _common(before, after):
        for place, mode in enumerate(modes):
            if ratios:
                changes += [_ratio_change(before, after, question, (mode, base)) for base in modes[:place]]
            else:
                changes.append(change(before, after, question, mode))
    return [one for one in changes if one is not None]


def change(before: Result, after: Result, question: Question, mode: str) -> Change | None:
    """Return how one figure changed, None if a result lacks it or has one that is not above 0."""
    kind = _kind(question)
    number = summary.seed(after.plan, question.key, mode)
    found = _figure(question, before.of(kind, mode), after.of(kind, mode), number)
    return found and found._replace(mode=mode)


def control(before: Result, after: Result) -> Change | None:
    """Return how the control changed: the same work as a plain process, in both results. It belongs to no mode.

    It means something only for results of the same host. None if a result has no control.
    """
    question = machine.question()
    number = summary.seed(after.plan, question.key)
    return _figure(question, before.of(CONTROL, ""), after.of(CONTROL, ""), number)


def moved(change: Change) -> str:
    """Return what a change of the control means for all figures, in a sentence; "" if no change of 3 % is shown.

    With too few rounds for an interval, the ratio itself is compared with the 3 %.
    """
    few = change.verdict == "few"
    if not (abs(change.ratio - 1) > BAND if few else change.verdict in ("more", "less")):
        return ""
    return (
        f"the control, the same work as a plain process, took {change.ratio:.3g} times as long as in the first result"
        f"{', with too few rounds to be sure' * few}: the machine was not in the same state both times, and may have "
        "caused changes of that size"
    )


def _ratio_change(before: Result, after: Result, question: Question, pair: tuple[str, str]) -> Change | None:
    """Return how the ratio of a pair (mode, base) changed."""
    kind, (mode, base) = _kind(question), pair
    ours, theirs = ((before.of(kind, each), after.of(kind, each)) for each in pair)
    found = _ratio(question, ours, theirs, summary.seed(after.plan, question.key, mode))
    return found and found._replace(mode=mode, base=base)


def refuse(before: Result, after: Result, *, ratios: bool, other_workload: bool) -> None:
    """Raise SpecError, with the reason, for results that may not be compared."""
    for reason, hint in unlike(before, after):
        if (ratios and reason.startswith(_HOST)) or (other_workload and reason.startswith(_WORKLOAD)):
            continue
        raise SpecError(reason, hint=hint)


_HOST, _WORKLOAD = "these are results of different hosts", "these are results of different workloads"


def unlike(before: Result, after: Result) -> Iterator[tuple[str, str]]:
    """Yield (reason, hint) for every reason not to compare the values of two results."""
    modes = [mode for mode in before.plan.modes if mode in after.plan.modes]
    if not modes:
        yield "these results have no mode in common", "measure again with the same --modes"
    for mode in modes:
        first, second = (one.accelerator(mode) for one in (before, after))
        if first != second:
            yield (
                f"in mode {mode} the first result's accelerator is {first or 'none'}, the second's {second or 'none'}",
                "emulated and virtualised guests are never compared; measure both with the same accelerator",
            )
    if before.plan.cold != after.plan.cold:
        yield "one result was measured cold, the other one warm", "measure again, both with --cold or both without"
    if _workload_digest(before.plan) != _workload_digest(after.plan):
        names = [str(one.plan.workload.get("name", "?")) for one in (before, after)]
        yield (
            f"{_WORKLOAD}: {names[0]} and {names[1]}{', which changed in between' if names[0] == names[1] else ''}",
            "`--other-workload` compares them anyway",
        )
    if before.host.get("id") is None or before.host.get("id") != after.host.get("id"):
        cpus = [f"{one.host.get('cpu')} ({one.host.get('id') or 'without an id'})" for one in (before, after)]
        yield (
            f"{_HOST}: {cpus[0]} and {cpus[1]}",
            "`--ratios` compares the ratios between the modes instead",
        )


def _workload_digest(plan: Plan) -> str:
    """Return the digest of the workload as this version computes it: a result of vmctl 0.1 has another one."""
    try:
        return Workload.from_values(plan.workload).digest()
    except UnreadableError:  # of a later version
        return plan.workload_digest


def left_out(before: Result, after: Result) -> list[str]:
    """Return what only one of the results has, and is therefore not compared, in sentences."""
    found = []
    for one, other, name in ((before, after, "second"), (after, before, "first")):
        missing = [mode for mode in one.plan.modes if mode not in other.plan.modes]
        found += [f"the {name} result has no mode {mode}" for mode in missing]
        metrics = [metric for metric in one.plan.metrics if metric not in other.plan.metrics]
        found += [f"the {name} result does not have the metric {metric}" for metric in metrics]
    if before.plan.instances != after.plan.instances:
        found.append(
            f"{DENSITY} is left out: the first result has {before.plan.instances} instances, "
            f"the second {after.plan.instances}"
        )
    return found


def _common(before: Result, after: Result) -> list[Question]:
    """Return the questions of both results."""
    metrics = [metric for metric in before.plan.metrics if metric in after.plan.metrics]
    if before.plan.instances != after.plan.instances and DENSITY in metrics:
        metrics.remove(DENSITY)
    services = [is_service(one.plan) for one in (before, after)]
    theirs = [question.key for _, question in asked(metrics, service=services[1])]
    return [question for _, question in asked(metrics, service=services[0]) if question.key in theirs]


def _kind(question: Question) -> str:
    """Return the kind of sample that answers a question."""
    return next(kind for kind in KINDS if question in questions(kind))


def _figure(question: Question, before: Sequence[Sample], after: Sequence[Sample], number: int) -> Change | None:
    if question.statistic == "slope":
        old, new = (list(summary.ladders(question, one).values()) for one in (before, after))
        first, second = statistics.slope(old), statistics.slope(new)
        if first is None or second is None or first <= 0 or second < 0:
            return None
        return _change(question, first, second, statistics.slope_ratio_interval(new, old))
    if question.statistic != "median":
        return None
    earlier, later = (list(summary.rounds(question, one).values()) for one in (before, after))
    if not earlier or not later:
        return None
    values = [[value for each in side for value in each] for side in (earlier, later)]
    first, second = map(statistics.median, values)
    if first <= 0 or second < 0:
        return None
    interval = statistics.change_interval(later, earlier, number)
    found = _change(question, first, second, interval)
    return found._replace(delta=statistics.cliffs_delta(values[1], values[0]))


Sides = tuple[Sequence[Sample], Sequence[Sample]]


def _ratio(question: Question, mode: Sides, base: Sides, number: int) -> Change | None:
    """Return how the ratio of two modes changed, None if a result lacks it. A ratio of slopes has no interval."""
    found, rounds = [], []
    for ours, theirs in zip(mode, base, strict=True):
        if question.statistic == "slope":
            above, below = (statistics.slope(list(summary.ladders(question, one).values())) for one in (ours, theirs))
        elif question.statistic == "median":
            first, second = summary.rounds(question, ours), summary.rounds(question, theirs)
            common = [each for each in first if each in second]
            rounds.append(([first[each] for each in common], [second[each] for each in common]))
            above, below = (_median_of(side) for side in rounds[-1])
        else:
            return None
        if above is None or below is None or above <= 0 or below <= 0:
            return None
        found.append(above / below)
    interval = statistics.ratios_change_interval(rounds[1], rounds[0], number) if rounds else None
    return _change(question, found[0], found[1], interval)._replace(unit="ratio")


def _median_of(side: Sequence[Sequence[float]]) -> float | None:
    values = [value for each in side for value in each]
    return statistics.median(values) if values else None


def _change(question: Question, before: float, after: float, interval: Interval | None) -> Change:
    ends = summary.ends(interval)
    return Change(
        key=question.key,
        title=question.title,
        unit=question.unit,
        mode="",
        base="",
        before=before,
        after=after,
        ratio=after / before,
        low=ends["low"],
        high=ends["high"],
        delta=None,
        verdict=statistics.verdict(interval),
        less_is_better=question.less_is_better,
        headline=question.headline,
    )
