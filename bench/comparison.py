"""One workload in several modes: rounds in random order, each mode once per round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from bench.sample import WARM_UP, Sample, take
from vmctl import engine, registry
from vmctl.errors import SpecError, UnavailableError, VmctlError
from vmctl.workload import Workload

Progress = Callable[[str], None]


class Comparison(NamedTuple):
    """Everything that was asked for and seen."""

    work: Workload
    modes: tuple[str, ...]
    runs: int
    seed: int
    order: tuple[tuple[str, ...], ...]  # of the modes, round by round
    missing: dict[str, str]  # mode -> why it was left out
    samples: tuple[Sample, ...]

    def of(self, mode: str) -> list[Sample]:
        """Return the counted samples of a mode, failed ones included."""
        return [sample for sample in self.samples if sample.mode == mode and sample.round != WARM_UP]

    def look(self, mode: str) -> Sample:
        """Return the mode's sample of the warm-up round, which was also asked for its answer."""
        return next(sample for sample in self.samples if sample.mode == mode and sample.round == WARM_UP)


def compare(
    work: Workload, modes: Sequence[str], runs: int, seed: int, progress: Progress, *, allow_missing: bool = False
) -> Comparison:
    """Measure the workload in every mode, `runs` times and once before that to warm up.

    Published ports are left out: the probe connects inside, and a port that is taken is no matter of the measurement.
    Raises VmctlError for a mode that cannot run here, unless `allow_missing` and another one can.
    """
    if len(set(modes)) < len(modes):
        raise SpecError(f"a mode is named twice: {', '.join(modes)}")
    work = work._replace(ports=())
    missing = _missing(work, modes, allow_missing=allow_missing)
    present = tuple(mode for mode in modes if mode not in missing)
    order = tuple(rounds(present, runs, seed))
    samples = []
    for number, turn in enumerate((present, *order)):
        for mode in turn:
            progress(f"round {number} of {runs}: {mode}" if number != WARM_UP else f"warming up: {mode}")
            samples.append(take(work, mode, number, look=number == WARM_UP))
    return Comparison(work, present, runs, seed, order, missing, tuple(samples))


def rounds(things: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """Return `count` rounds, each with everything once, in an order that only the seed determines."""
    random = Random(seed)
    return [tuple(random.sample(things, len(things))) for _ in range(count)]


def _missing(work: Workload, modes: Sequence[str], *, allow_missing: bool) -> dict[str, str]:
    missing = {}
    for mode in modes:
        try:
            engine.check(work, registry.load(mode))
        except SpecError:
            raise
        except VmctlError as error:
            if not allow_missing:
                error.hint = f"{error.hint}; " * bool(error.hint) + "`--allow-missing` leaves the mode out"
                raise
            missing[mode] = str(error)
    if len(missing) == len(modes):
        raise UnavailableError(f"{work.name} can run in none of these modes here", detail="\n".join(missing.values()))
    return missing
