"""What `result.json` contains: the plan, every raw sample, every printed figure.

The JSON Schema (result.schema.json) is generated from these classes, and a file is checked against them when it is
read. Names include their unit. A value that was not observed is null or absent, never 0.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from bench.statistics import VERDICTS

FORMAT = "vmctl bench 4"
LENIENT = "vmctl bench 3"  # the same, with T4 before T1 in some samples, slopes below 0, outliers of few observations
WITHOUT_CONTROL = "vmctl bench 2"  # the same as 3 without the control's figure
FORMATS = (FORMAT, LENIENT, WITHOUT_CONTROL)

CONTROL = "control"  # the kind of sample that belongs to no mode: fixed work as a plain process, once per round


# These limits are checked when a file is read. A moment: seconds since the epoch, before the year 9999.
Moment = Annotated[float, msgspec.Meta(ge=0, le=253_000_000_000)]
Whole = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]  # any processor's, and any JSON parser's
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 62)]
Verdict = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(VERDICTS)})$")]  # a key of bench.statistics.VERDICTS


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings that all of them share."""


class Step(Struct, frozen=True):
    """One sample to take. Rounds count from 1; warm-up rounds are numbered ..., -1, 0 and do not count."""

    kind: str  # the name of a module of bench/probes
    mode: str  # "" for CONTROL
    round: Whole


class Plan(Struct, frozen=True):
    """What is measured, in which order. It is made once; --resume continues with it."""

    workload: dict[str, Any]
    workload_digest: str
    modes: tuple[str, ...]
    metrics: tuple[str, ...]
    runs: Count
    warm_ups: Whole
    seed: Whole
    cold: bool
    instances: Count  # at most so many at once: ladder, storm
    time_limit_s: float | None  # per sample; None: the default of its kind
    steps: tuple[Step, ...]
    equalised: bool = False  # whether the workload's processors and memory are those that a guest has by default


class Sample(Struct, frozen=True):
    """What a worker process observed in one step. With an `error` the rest may be empty."""

    kind: str
    mode: str
    round: Whole
    started: Moment  # seconds since the epoch: when, not how long
    error: str | None = None
    marks_ns: dict[str, Whole] = {}  # CLOCK_MONOTONIC of the host; see vmctl/instances/timeline.py
    values: dict[str, float] = {}
    series: dict[str, list[float]] = {}
    texts: dict[str, str] = {}

    @property
    def counts(self) -> bool:
        """Whether it succeeded and is not a warm-up."""
        return self.round > 0 and self.error is None

    def between_s(self, first: str, last: str) -> float | None:
        """Return the seconds between two marks, None if one was not observed."""
        if first not in self.marks_ns or last not in self.marks_ns:
            return None
        return (self.marks_ns[last] - self.marks_ns[first]) / 1e9


class Figure(Struct, frozen=True):
    """The answer to one question for one mode: the `value` of the `statistic`, and everything printed with it."""

    key: str  # of the question; see bench/questions.py
    mode: str  # "" for CONTROL
    statistic: str  # median | slope | p95 | p99
    unit: str  # s | bytes | 1/s | bytes/s | count | share
    value: float | None  # None: no or too few observations, see `why`
    low: float | None = None  # ends of the 95 % interval, None for fewer than 30 rounds
    high: float | None = None
    minimum: float | None = None
    p5: float | None = None
    p95: float | None = None
    mad: float | None = None  # median absolute deviation
    observations: Whole = 0
    outliers: Whole = 0  # counted, never removed
    failures: Whole = 0  # steps without an observation
    why: str = ""


class Ratio(Struct, frozen=True):
    """One mode compared with another one, for one question: the ratio of their figures over the same rounds."""

    key: str
    mode: str
    base: str
    ratio: float
    low: float | None  # 95 % bootstrap interval over rounds
    high: float | None
    delta: float  # Cliff's delta, -1 to 1
    verdict: Verdict


class Refusal(Struct, frozen=True):
    """A mode, or a kind of sample in a mode, that could not be measured on this host, and why."""

    mode: str
    kind: str  # "" for the mode as a whole
    reason: str


class Result(Struct, frozen=True):
    """One complete measurement."""

    id: str  # random, one per measurement
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
        """Return the samples of a kind in a mode without warm-ups, with failed ones, in the order of their rounds."""
        found = [one for one in self.samples if (one.kind, one.mode) == (kind, mode) and one.round > 0]
        return sorted(found, key=lambda one: one.round)

    def accelerator(self, mode: str) -> str:
        """Return the accelerator of a mode's guests, "" for a mode without guests, or if it is unknown."""
        found = {one.texts["accelerator"] for one in self.samples if one.mode == mode and "accelerator" in one.texts}
        return " and ".join(sorted(found))
