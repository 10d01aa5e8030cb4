"""The plan: what is measured, and in which order. Every round has every mode once, shuffled by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from bench import questions
from bench.model import CONTROL, Plan, Step
from vmctl import records
from vmctl.errors import SpecError
from vmctl.spec.workload import Workload

WARM_UPS = 3
INSTANCES = 5


def rounds(things: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """Return `count` rounds, each with every thing once, in an order that depends only on the seed."""
    random = Random(seed)
    return [tuple(random.sample(things, len(things))) for _ in range(count)]


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise SpecError for an unknown metric, or one that is named twice."""
    unknown = [name for name in metrics if name not in questions.METRICS]
    if unknown or not metrics:
        reason = f"unknown metric: {', '.join(unknown)}" if unknown else "no metric is given"
        raise SpecError(reason, hint=f"the metrics are {', '.join(questions.METRICS)}")
    if len(set(metrics)) < len(metrics):
        raise SpecError(f"a metric is named twice: {', '.join(metrics)}")


def make(
    work: Workload,
    modes: Sequence[str],
    metrics: Sequence[str],
    runs: int,
    seed: int,
    *,
    cold: bool = False,
    instances: int = INSTANCES,
    time_limit_s: float | None = None,
    quick: bool = False,
    equalised: bool = False,
) -> Plan:
    """Return the plan: one kind of sample after the other, each in rounds, with warm-ups if the kind is timed.

    The first kind without a limit of rounds, usually `start`, has a control in each round: the same work as a plain
    process, which distinguishes changes of the machine from changes of the workload. With `quick` the plan has only
    the first kind.
    """
    by_http = work.ready is not None and work.ready.http is not None
    fitting = [kind for kind in questions.kinds(metrics) if by_http or kind not in questions.HTTP_KINDS]
    kinds = fitting[: 1 if quick else None]
    endless = [kind for kind in kinds if questions.rounds(kind) is None]
    warm_ups = {kind: 1 if kind in endless else 0 for kind in kinds}  # kinds with few rounds are slow and not timed
    warm_ups[kinds[0]] = 0 if cold else WARM_UPS
    steps = [
        step for kind in kinds for step in _steps(kind, modes, runs, warm_ups[kind], seed, control=kind in endless[:1])
    ]
    return Plan(
        workload=records.plain(work),
        workload_digest=work.digest(),
        modes=tuple(modes),
        metrics=tuple(metrics),
        runs=runs,
        warm_ups=warm_ups[kinds[0]],
        seed=seed,
        cold=cold,
        instances=instances,
        time_limit_s=time_limit_s,
        equalised=equalised,
        steps=tuple(steps),
    )


def _steps(kind: str, modes: Sequence[str], runs: int, warm_ups: int, seed: int, *, control: bool) -> list[Step]:
    """Return the steps of one kind."""
    limit = questions.rounds(kind)
    count = runs if limit is None else min(runs, limit)
    things = [*modes, *([CONTROL] if control else [])]
    turns = [tuple(modes)] * warm_ups + rounds(things, count, seed)
    return [
        Step(kind=CONTROL if thing == CONTROL else kind, mode="" if thing == CONTROL else thing, round=number)
        for number, turn in enumerate(turns, 1 - warm_ups)
        for thing in turn
    ]
