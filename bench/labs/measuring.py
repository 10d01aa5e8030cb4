"""Samples of the bench for a lab: the same probes as `vmctl bench`, in a folder that is removed at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory

from bench import schedule, session
from bench.labs.lab import Samples
from bench.model import Plan, Sample, Step
from vmctl import records
from vmctl.errors import VmctlError
from vmctl.spec.workload import Workload


def measure(
    work: Workload,
    kind: str,
    modes: Sequence[str],
    rounds: int,
    *,
    instances: int = 1,
    options: Mapping[str, str],
    progress: Callable[[str], None],
) -> dict[str, list[Sample]]:
    """Return the samples of a kind (a module of bench/probes) by mode, in interleaved rounds.

    Raises VmctlError with the reason of the first sample that failed.
    """
    steps = [
        Step(kind=kind, mode=mode, round=number)
        for number, turn in enumerate(schedule.rounds(modes, rounds, seed=rounds), 1)
        for mode in turn
    ]
    plan = Plan(
        workload=records.plain(work),
        workload_digest=work.digest(),
        modes=tuple(modes),
        metrics=(),
        runs=rounds,
        warm_ups=0,
        seed=rounds,
        cold=False,
        instances=instances,
        time_limit_s=None,
        steps=tuple(steps),
    )
    with TemporaryDirectory(prefix="vmctl-lab-") as folder:
        one = session.begin(folder, work, plan, (), options)
        one.follow(lambda text: progress(text.removeprefix(f"{kind} ")))
    found: dict[str, list[Sample]] = {mode: [] for mode in modes}
    for sample in one.samples:
        if sample.error:
            raise VmctlError(f"mode {sample.mode} could not be measured: {sample.error}")
        found[sample.mode].append(sample)
    return found


def values(samples: Sequence[Sample], name: str, unit: str) -> Samples:
    """Return the values of one name, in the order of the samples; those without it are left out."""
    return Samples(unit, tuple(one.values[name] for one in samples if name in one.values))


def took(samples: Sequence[Sample], first: str, last: str) -> Samples:
    """Return the seconds between two marks, in the order of the samples; those without them are left out."""
    marks = [one.marks_ns for one in samples]
    return Samples("s", tuple((one[last] - one[first]) / 1e9 for one in marks if first in one and last in one))
