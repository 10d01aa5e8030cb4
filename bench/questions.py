"""The questions that samples answer: each with its unit, how a sample answers it, and what the answer means.

Each probe in bench/probes declares the questions of its kind of sample. This module defines a question and collects
all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from bench.model import Plan, Sample

# kind of sample -> the metrics of `--metrics` that need it
KINDS: dict[str, tuple[str, ...]] = {
    "start": ("boot", "memory", "disk", "teardown"),
    "load": ("memory",),
    "ladder": ("memory", "disk", "density"),
    "writes": ("disk",),
    "storm": ("density",),
    "cpu": ("cpu",),
    "syscall": ("syscall",),
    "command": ("exec",),
    "io": ("io",),
    "service": ("net",),
    "net": ("net",),
}
HTTP_KINDS = ("service",)  # only for a workload with `ready: {http: ...}`
METRICS = ("boot", "memory", "disk", "cpu", "syscall", "exec", "io", "net", "density", "teardown")
DEFAULT_METRICS = ("boot", "memory", "disk", "teardown")
BATCH_METRICS = ("boot", "teardown")  # a workload that ends by itself is never idle


class Question(NamedTuple):
    """One question. `values` returns the answer of one sample: no number, one, or many (latencies).

    For the statistic "slope" `points` returns pairs instead: (number of instances, bytes or seconds).
    """

    key: str  # metric.what_unit, for instance boot.answer_s: stable, since files contain it
    title: str  # for a table: a few words, lower case; two leading spaces: a part of the row above
    unit: str  # see Figure.unit
    values: Callable[[Sample], Sequence[float]] = lambda sample: ()
    points: Callable[[Sample], Sequence[tuple[float, float]]] | None = None
    statistic: str = "median"  # median | slope | p95 | p99
    less_is_better: bool = True
    marginal: bool = False  # the cost of one more instance: above 0, and only measured with at least two
    compared: bool = True  # False: the modes do different things then, and a ratio of these means nothing
    hostwide: bool = False  # a change of the whole host, which other programs move too
    headline: bool = False  # has its own sentence and chart in the report
    meaning: str = ""  # what is measured, from which moment to which, and by which source
    service: bool | None = None  # True: only for workloads with `ready`; False: only without; None: for both

    @property
    def metric(self) -> str:
        """The metric that the question belongs to."""
        return self.key.partition(".")[0]


def value(name: str) -> Callable[[Sample], Sequence[float]]:
    """Return a `Question.values` that returns the sample's value of that name, if it has one."""
    return lambda sample: [sample.values[name]] if name in sample.values else []


def between(first: str, last: str) -> Callable[[Sample], Sequence[float]]:
    """Return a `Question.values` that returns the seconds between two marks, if both were observed.

    In results of earlier formats T4 can be some microseconds before T1, which counts as 0.
    """

    def seconds(sample: Sample) -> Sequence[float]:
        found = sample.between_s(first, last)
        return [] if found is None else [max(0.0, found)]

    return seconds


def kinds(metrics: Sequence[str]) -> list[str]:
    """Return the kinds of sample that these metrics need."""
    return [kind for kind, needing in KINDS.items() if set(needing) & set(metrics)]


def questions(kind: str) -> tuple[Question, ...]:
    """Return the questions that samples of a kind answer."""
    found: tuple[Question, ...] = import_module(f"bench.probes.{kind}").QUESTIONS
    return found


def asked(metrics: Sequence[str], *, service: bool) -> list[tuple[str, Question]]:
    """Return (kind, question) for every question of these metrics, in the order of METRICS and KINDS."""
    found = [(kind, question) for kind in kinds(metrics) for question in questions(kind)]
    wanted = [
        (kind, question)
        for kind, question in found
        if question.metric in metrics and question.service in (None, service)
    ]
    return sorted(wanted, key=lambda pair: METRICS.index(pair[1].metric))


def of(plan: Plan) -> list[tuple[str, Question]]:
    """Return (kind, question) for every question that the samples of a plan answer."""
    planned = {step.kind for step in plan.steps}
    return [pair for pair in asked(plan.metrics, service=is_service(plan)) if pair[0] in planned]


def is_service(plan: Plan) -> bool:
    """Return whether the workload gets ready and keeps running, in contrast to one that ends by itself."""
    return bool(plan.workload.get("ready"))


def rounds(kind: str) -> int | None:
    """Return the most rounds that a kind of sample gets, None for as many as --runs."""
    found: int | None = import_module(f"bench.probes.{kind}").ROUNDS
    return found
