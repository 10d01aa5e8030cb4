"""The same effect over the machines of a class: values, outliers, and the facts of the hosts that go with them.

Only runs that the check confirms count. Nothing of a hand-in is trusted: names are cut, facts that are not plain values
are unknown, and numbers are those that `bench.handins.record` has let in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from bench import statistics
from bench.formatting import quantity
from bench.handins import check
from bench.handins.check import DOUBTFUL, WRONG, Finding
from bench.handins.record import Measured, Record, Run
from bench.labs.lab import CHOICES
from vmctl.console import visible

LEAST = 3  # machines, for an effect to be shown
GROUP, DELTA = 4, 0.8  # machines in each group, and Cliff's delta, for a fact to go with a difference
RANKED, TAU = 8, 0.6  # machines, and Kendall's tau, for a number to go with it
_TEXT_MAX, _REASON_MAX, _EFFECTS_MAX = 80, 1000, 300
_WORDS = ("cpu", "under_a_hypervisor", "kernel", "cgroup_version", "governor", "qemu", "vmctl")
_NUMBERS = {"cpus": "1", "memory_bytes": "bytes"}


class Point(NamedTuple):
    """The value of one machine: the median of what it has measured."""

    machine: str
    value: float
    measured: int  # values
    run: str
    facts: Mapping[str, str | float]  # of the host at that run
    doubts: str
    far: bool = False  # an outlier among the machines with the same accelerator


class Effect(NamedTuple):
    """What several machines have measured of the same name in the same lab."""

    lab: str
    name: str
    unit: str
    points: tuple[Point, ...]  # from the smallest to the largest value
    goes_with: tuple[str, ...]

    @property
    def middle(self) -> float:
        """The median of the machines."""
        return median(one.value for one in self.points)

    @property
    def spread(self) -> str:
        """The range, and how many times the smallest the largest is."""
        low, high = self.points[0].value, self.points[-1].value
        times = f", {high / low:.3g} times" if low > 0 else ""
        return f"{quantity(low, self.unit)} to {quantity(high, self.unit)}{times}"


class Class(NamedTuple):
    """All hand-ins of a class."""

    machines: tuple[str, ...]
    effects: tuple[Effect, ...]
    verdicts: Mapping[str, Mapping[str, tuple[str, ...]]]  # lab -> verdict -> machines
    left_out: tuple[tuple[str, str], ...]  # machine, and what is wrong with its hand-in


def gathered(records: Mapping[str, Record], *, anonymous: bool = False) -> Class:
    """Return the class of these hand-ins, by their files. Names of students become numbers if `anonymous`."""
    labels = _labels(records, anonymous)
    shared = check.shared(records)
    points: dict[tuple[str, str, str], list[Point]] = {}
    verdicts: dict[str, dict[str, list[str]]] = {}
    left_out: list[tuple[str, str]] = []
    for file, record in records.items():
        found = check.check(record)
        for one, other, text in shared:
            if file in (one, other):
                with_ = labels[other if file == one else one]
                found.append(Finding(WRONG, "", f"shared with {with_}: {text}"))
        wrong = [f"{one.run}: {one.text}".strip(": ") for one in found if one.level == WRONG]
        left_out += [(labels[file], cut(text, _REASON_MAX)) for text in wrong]
        for lab, run in check.confirmed(record, found).items():
            verdicts.setdefault(lab, {}).setdefault(run.verdict, []).append(labels[file])
            doubts = "; ".join(one.text for one in found if one.level == DOUBTFUL and one.run in ("", run.id))
            for name, unit, values in _measured(run):
                more = (cut(run.id), facts(record, run), cut(doubts, _REASON_MAX))
                point = Point(labels[file], median(values), len(values), *more)
                points.setdefault((lab, name, unit), []).append(point)
    effects = [_effect(*key, some) for key, some in points.items() if len(some) >= LEAST][:_EFFECTS_MAX]
    words = {lab: {word: tuple(found.get(word, ())) for word in CHOICES} for lab, found in verdicts.items()}
    return Class(tuple(labels.values()), tuple(effects), words, tuple(left_out))


def cut(text: str, most: int = _TEXT_MAX) -> str:
    """Return a text of a hand-in without control characters, not longer than `most`: by default a line of the page."""
    text = visible(text)
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def _labels(records: Mapping[str, Record], anonymous: bool) -> dict[str, str]:
    """Return a name for each hand-in that no other has, by file."""
    names = {file: "" if anonymous else cut(record.student or file) for file, record in records.items()}
    counts, width = Counter(names.values()), len(str(len(records)))
    return {
        file: f"{name} {number:0{width}}".strip() if counts[name] > 1 or not name else name
        for number, (file, name) in enumerate(names.items(), 1)
    }


def _measured(run: Run) -> list[tuple[str, str, tuple[float, ...]]]:
    return [
        (cut(name), cut(value.unit), value.values)
        for name, value in run.evidence.items()
        if isinstance(value, Measured) and value.values
    ]


def facts(record: Record, run: Run) -> dict[str, str | float]:
    """Return the facts of the host of a run, by name; an unknown one is missing."""
    host = record.hosts.get(run.host, {})
    found: dict[str, str | float] = {"accelerator": cut(run.accelerator)} if run.accelerator else {}
    for name in _WORDS:
        value = host.get(name)
        if isinstance(value, str | int):  # a bool is one
            text = ("yes" if value else "no") if isinstance(value, bool) else str(value)[:400]
            found[name] = cut(text.split()[0] if name == "kernel" and text.split() else text)
    for name in _NUMBERS:
        value = host.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18:
            found[name] = float(value)
    return {**found, "load": max(run.load)}


def _effect(lab: str, name: str, unit: str, points: Sequence[Point]) -> Effect:
    ordered = sorted(points, key=lambda one: (one.value, one.machine))
    far = _far(ordered)
    found = tuple(one._replace(far=one.machine in far) for one in ordered)
    return Effect(lab, name, unit, found, tuple(_goes_with(found, unit)))


def _far(points: Sequence[Point]) -> set[str]:
    """Return the machines that are outliers among those with the same accelerator, of which there are enough."""
    groups: dict[object, list[Point]] = {}
    for one in points:
        groups.setdefault(one.facts.get("accelerator"), []).append(one)
    found: set[str] = set()
    for group in groups.values():
        values = [one.value for one in group]
        if min(values) > 0:  # twice and half are as far from the median
            values = [math.log(value) for value in values]
        if len(values) >= statistics.ENOUGH_FOR_OUTLIERS and statistics.deviation(values):
            far = statistics.outliers(values)
            found |= {one.machine for one, flag in zip(group, far, strict=True) if flag}
    return found


def _goes_with(points: Sequence[Point], unit: str) -> list[str]:
    """Return which facts go with the values, by the rules of GROUP, DELTA, RANKED and TAU."""
    found = []
    for name in ("accelerator", *_WORDS):
        known = [one for one in points if name in one.facts]
        counts = Counter(str(one.facts[name]) for one in known)
        for value in [text for text, count in counts.most_common(3) if count >= GROUP]:
            ours = [one.value for one in known if one.facts[name] == value]
            others = [one.value for one in known if one.facts[name] != value]
            if len(others) >= GROUP and abs(statistics.cliffs_delta(ours, others)) >= DELTA:
                each = [f"{quantity(median(some), unit)} ({len(some)})" for some in (ours, others)]
                found.append(f"{title(name)}: {each[0]} with {value}, {each[1]} without")
                break
    for name in (*_NUMBERS, "load"):
        pairs = [(float(one.facts[name]), one.value) for one in points if name in one.facts]
        if len(pairs) >= RANKED and abs(tau := statistics.tau([pairs])) >= TAU:
            grows = "larger" if tau > 0 else "smaller"
            found.append(f"{title(name)}: the more, the {grows} (Kendall's tau {tau:.2f}, {len(pairs)} machines)")
    return found


def title(name: str) -> str:
    """Return the name of a fact for people."""
    return {"memory_bytes": "memory", "cpu": "processor", "cpus": "processors"}.get(name, name.replace("_", " "))


def shown(name: str, value: str | float | None) -> str:
    """Return a fact as text."""
    if isinstance(value, float):
        return quantity(value, _NUMBERS.get(name, "1"))
    return value or "-"


COLUMNS = ("accelerator", "cpu", "cpus", "memory_bytes", "kernel", "under_a_hypervisor", "cgroup_version", "load")
