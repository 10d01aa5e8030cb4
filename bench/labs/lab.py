"""What a lab is: a claim, an experiment, and a rule that was fixed before it. The rule sees the evidence only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple, Protocol

from bench.formatting import quantity

HOLDS, REFUTED, UNDECIDABLE = "holds", "refuted", "undecidable here"
CHOICES = (HOLDS, REFUTED, UNDECIDABLE)


class Samples(NamedTuple):
    """Measured values, in the order in which they were measured."""

    unit: str  # `s`, `bytes`, or `1` for a number of something
    values: tuple[float, ...]

    def __str__(self) -> str:
        """Return the median, and from where to where the values go if there are several."""
        middle, *ends = (quantity(one, self.unit) for one in (median(self.values), min(self.values), max(self.values)))
        return middle if len(self.values) == 1 else f"{middle} ({' to '.join(ends)}, {len(self.values)} samples)"


Evidence = Mapping[str, str | Samples]  # `container: kernel` -> value, in the order in which it was found


class Verdict(NamedTuple):
    """What the rule of a lab makes of its evidence, and why."""

    word: str  # one of CHOICES
    reason: str


class Place(Protocol):
    """What an experiment can use: the public interface of vmctl. What it starts is removed when it returns."""

    def facts(self, modes: tuple[str, ...], image: str = "tiny", **limits: object) -> Evidence:
        """Return what a workload that waits sees in each mode, and the host of it; names as in vmctl.compare.rows.

        `limits` are `cpus` and `memory_bytes`.
        """

    def ask(self, mode: str, *scripts: str) -> list[str]:
        """Run each shell script in an instance of its own of this mode, all at the same time; return what they print.

        At the end of each output is its exit code, as a line `exit N`.
        """


class Lab(NamedTuple):
    """One claim and how it is decided."""

    number: int
    name: str
    claim: str
    why: str  # why it matters
    steps: tuple[str, ...]
    rule: str  # in words, what `decide` does
    modes: tuple[str, ...]  # without one of them it is undecidable
    gather: Callable[[Place], Evidence]
    decide: Callable[[Evidence], Verdict]
    next: tuple[str, str, str]  # three things to try


def plain(seen: Evidence) -> dict[str, object]:
    """Return the evidence as values of JSON: a text, or an object with unit and values."""
    return {name: value if isinstance(value, str) else value._asdict() for name, value in seen.items()}


def text(seen: Evidence, name: str) -> str:
    """Return a piece of evidence that is a text, "" if it is missing."""
    value = seen.get(name, "")
    return value if isinstance(value, str) else ""


def samples(seen: Evidence, name: str) -> tuple[float, ...]:
    """Return the values of a piece of evidence that was measured, none if it is missing."""
    value = seen.get(name, "")
    return value.values if isinstance(value, Samples) else ()


def missing(seen: Evidence, *names: str) -> Verdict | None:
    """Return that it cannot be decided if one of these pieces of evidence is missing."""
    absent = [name for name in names if not seen.get(name)]
    return Verdict(UNDECIDABLE, f"there is no evidence for {', '.join(absent)}") if absent else None


def chosen(seen: Evidence, facts: str, modes: tuple[str, ...]) -> Evidence:
    """Return of all evidence these facts, separated by blanks, of these modes."""
    wanted = [f"{mode}: {fact}" for fact in facts.split() for mode in modes]
    return {name: seen[name] for name in wanted if name in seen}
