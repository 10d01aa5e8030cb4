"""What a lab is: a claim, an experiment, and a rule that was fixed before it. The rule sees the evidence only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, Protocol

from bench.formatting import quantity
from bench.labs.parameters import NONE, Choices
from bench.model import Sample

HOLDS, REFUTED, UNDECIDABLE = "holds", "refuted", "undecidable here"
STEADY = 1.25
CHOICES = (HOLDS, REFUTED, UNDECIDABLE)


class Samples(NamedTuple):
    """Measured values, in the order in which they were measured."""

    unit: str  # `s`, `bytes`, or `1` for a number of something
    values: tuple[float, ...]

    def __str__(self) -> str:
        """Return the median, and from where to where the values go if there are several."""
        if not self.values:
            return "not seen"
        middle, *ends = (quantity(one, self.unit) for one in (median(self.values), min(self.values), max(self.values)))
        return middle if len(self.values) == 1 else f"{middle} ({' to '.join(ends)}, {len(self.values)} samples)"


Value = str | Samples
Evidence = Mapping[str, Value]  # `container: kernel` -> value, in the order in which it was found


class Verdict(NamedTuple):
    """What the rule of a lab makes of its evidence, and why."""

    word: str  # one of CHOICES
    reason: str


class Place(Protocol):
    """What an experiment can use: the public interface of vmctl. What it starts is removed when it returns."""

    def parameter(self, name: str) -> int:
        """Return a parameter of the lab, which the seed of the record has drawn. It is evidence, too."""

    def facts(self, modes: tuple[str, ...], image: str = "tiny", **limits: Any) -> Evidence:
        """Return what a workload that waits sees in each mode, and the host of it; names as in vmctl.comparing.rows.

        `limits` are `cpus` and `memory_bytes`.
        """

    def ask(self, mode: str, *scripts: str, **keys: Any) -> list[str]:
        """Run each shell script in another instance of this mode, and return the outputs as `exec` does.

        The instances run at the same time. `keys` are of vmctl.spec.workload.Workload, or `cpus` and `memory_bytes`.
        """

    def start(self, mode: str, script: str = "", **keys: Any) -> str:
        """Start an instance that runs a script, or waits; return its name. It runs until the lab ends."""

    def start_s(self, name: str) -> Samples:
        """Return the seconds from the request to start this instance to its first output, none if it had no output."""

    def exec(self, name: str, script: str) -> str:
        """Run a shell script in a running instance; return its output and a last line `exit N`."""

    def vmctl(self, *words: str) -> str:
        """Run a command of vmctl; return its output and a last line `exit N`."""

    def image(self, *lines: str, files: Mapping[str, bytes] = {}) -> str:
        """Build an image from the lines of a Dockerfile and files next to it; return its name. It is removed later."""

    def marked(self, name: str) -> list[int]:
        """Return the processes of this machine that have the environment of this instance's workload."""

    def samples(
        self, kind: str, modes: tuple[str, ...], rounds: int = 1, instances: int = 1, **keys: Any
    ) -> Mapping[str, Sequence[Sample]]:
        """Return samples of the bench by mode, measured in interleaved rounds; `kind` is a module of bench/probes."""

    def crowd(self, mode: str, count: int, **keys: Any) -> Mapping[str, Samples]:
        """Return what some instances took that ran at the same time, and how long each start took: see crowds.py."""

    def spent_s(self, name: str) -> float:
        """Return the seconds of processor time that an instance has used since its start, as `vmctl stats` counts."""

    def clones(self, name: str, count: int) -> list[str]:
        """Make a snapshot of a running instance and start clones of it; return their names. All is removed later."""

    def kernel(self, change: Callable[[bytes], bytes]) -> str:
        """Add a kernel to the store: that of guests with a changed image; return its name. It is removed later."""

    def memory(self, name: str) -> Samples:
        """Return the memory charged to the control group of an instance once it is flat; without a group its PSS."""


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
    published: str = ""  # what others have measured, and their source
    parameters: Choices = NONE  # what a seed draws: see parameters.py


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
    absent = [name for name in names if not (text(seen, name) or samples(seen, name))]
    return Verdict(UNDECIDABLE, f"there is no evidence for {', '.join(absent)}") if absent else None


def disturbed(seen: Evidence, *names: str) -> list[str]:
    """Return which of these measured pieces of evidence scatter so much that other work has disturbed them.

    Other work can only add to the time of fixed work: the median of a quiet machine is close to the fastest sample.
    """
    return [name for name in names if median(samples(seen, name)) > STEADY * min(samples(seen, name))]


def chosen(seen: Evidence, facts: str, modes: tuple[str, ...]) -> Evidence:
    """Return of all evidence these facts, separated by blanks, of these modes."""
    wanted = [f"{mode}: {fact}" for fact in facts.split() for mode in modes]
    return {name: seen[name] for name in wanted if name in seen}
