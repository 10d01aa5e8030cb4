"""What a measurement is made of, as it stands in `result.json`: the plan, every raw sample, every printed figure.

The JSON Schema that is shipped (result.schema.json) is made from these classes, and a file is held against them when
it is read. Names carry their unit; what was not observed is null or absent, never 0.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from bench.statistics import VERDICTS

FORMAT = "vmctl bench 3"
WITHOUT_CONTROL = "vmctl bench 2"  # what was written before: the same, but for the control's figure

CONTROL = "control"  # the kind of sample that belongs to no mode: fixed work as a plain process, once per round


# What a file is held against when it is read. A moment: seconds since the epoch, before the year 9999.
Moment = Annotated[float, msgspec.Meta(ge=0, le=253_000_000_000)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Verdict = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(VERDICTS)})$")]  # a key of bench.statistics.VERDICTS


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manner of all of them."""


class Step(Struct, frozen=True):
    """One sample to be taken. Rounds count from 1; those below do not count: 0 the last of the warm-up, -1 before."""

    kind: str  # the name of a module of bench/probes
    mode: str  # "" for CONTROL
    round: int


class Plan(Struct, frozen=True):
    """What is measured, in which order; made once, and followed again by --resume."""

    workload: dict[str, Any]
    workload_digest: str
    modes: tuple[str, ...]
    metrics: tuple[str, ...]
    runs: Count
    warm_ups: int
    seed: int
    cold: bool
    instances: Count  # at most that many at once: ladder, storm
    time_limit_s: float | None  # per sample; None: what its kind takes for enough
    steps: tuple[Step, ...]


class Sample(Struct, frozen=True):
    """What was observed in one step, by a process of its own. With an `error` the rest may be empty."""

    kind: str
    mode: str
    round: int
    started: Moment  # seconds since the epoch: when, not how long
    error: str | None = None
    marks_ns: dict[str, int] = {}  # CLOCK_MONOTONIC of the host; see vmctl/timeline.py
    values: dict[str, float] = {}
    series: dict[str, list[float]] = {}
    texts: dict[str, str] = {}

    @property
    def counts(self) -> bool:
        """Whether it is one of the rounds that are looked at, and did not fail."""
        return self.round > 0 and self.error is None

    def between_s(self, first: str, last: str) -> float | None:
        """Return the seconds between two marks, None where one was not observed."""
        if first not in self.marks_ns or last not in self.marks_ns:
            return None
        return (self.marks_ns[last] - self.marks_ns[first]) / 1e9


class Figure(Struct, frozen=True):
    """One answer for one mode. `value` is what the `statistic` gives; everything printed of it stands here."""

    key: str  # of the question; see bench/questions.py
    mode: str  # "" for that of CONTROL
    statistic: str  # median | slope | p95 | p99
    unit: str  # s | bytes | 1/s | bytes/s | count | share
    value: float | None  # None: too few observations, `why` says so, or none at all
    low: float | None = None  # of the 95 % interval, None for fewer than 30 rounds
    high: float | None = None
    minimum: float | None = None
    p5: float | None = None
    p95: float | None = None
    mad: float | None = None  # median absolute deviation
    observations: int = 0
    outliers: int = 0  # flagged, never taken out
    failures: int = 0  # steps that gave no observation
    why: str = ""


class Ratio(Struct, frozen=True):
    """One mode beside another one, for one question: the ratio of their figures over the same rounds."""

    key: str
    mode: str
    base: str
    ratio: float
    low: float | None  # 95 % bootstrap interval over rounds
    high: float | None
    delta: float  # Cliff's delta, -1 to 1
    verdict: Verdict


class Refusal(Struct, frozen=True):
    """A mode, or a kind of sample in a mode, that could not be measured here, and why."""

    mode: str
    kind: str  # "" for the mode as a whole
    reason: str


class Result(Struct, frozen=True):
    """One measurement, whole."""

    id: str  # of this measurement, made up
    created: Moment  # seconds since the epoch
    host: dict[str, Any]  # bench.manifest.facts()
    explained: dict[str, list[list[str]]]  # mode -> [what, raw] of every host step: mounts, cgroup, QEMU's argv, XML
    plan: Plan
    refusals: tuple[Refusal, ...] = ()
    samples: tuple[Sample, ...] = ()
    figures: tuple[Figure, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    format: str = FORMAT

    def of(self, kind: str, mode: str) -> list[Sample]:
        """Return the samples of a kind in a mode that count, failed ones included, in the order of their rounds."""
        found = [one for one in self.samples if (one.kind, one.mode) == (kind, mode) and one.round > 0]
        return sorted(found, key=lambda one: one.round)

    def accelerator(self, mode: str) -> str:
        """Return what the guests of a mode were run by, "" for a mode without guests, or that nothing is known of."""
        found = {one.texts["accelerator"] for one in self.samples if one.mode == mode and "accelerator" in one.texts}
        return " and ".join(sorted(found))
