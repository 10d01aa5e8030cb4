"""The recorded starts of instances, on one scale: what `vmctl timeline` draws."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic_ns
from typing import TYPE_CHECKING, NamedTuple

from vmctl import backends
from vmctl.errors import NotFoundError, StateError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.phases import ZERO, laps
from vmctl.spec.units import format_seconds

if TYPE_CHECKING:
    from typing import Any


class Bar(NamedTuple):
    """A phase of a start; seconds on the scale of its `Recorded`."""

    name: str
    title: str
    why: str
    begin_s: float
    end_s: float
    preparation: bool  # made before the start is measured

    @property
    def took_s(self) -> float:
        """How long it took."""
        return self.end_s - self.begin_s


class Recorded(NamedTuple):
    """The last start of an instance; seconds since the start was requested (T0), or on the host's clock."""

    name: str
    how: str  # mode and accelerator
    zero_s: float  # where its T0 is on the scale
    ready_s: float | None  # how long from T0 to the first answer
    bars: tuple[Bar, ...]

    def heading(self) -> str:
        """Return the line about a start."""
        runs = next((bar.end_s - self.zero_s for bar in self.bars if bar.name == "exec"), None)
        what, took_s = ("runs", runs) if self.ready_s is None else ("ready", self.ready_s)
        how = "not started completely" if took_s is None else f"{what} after {format_seconds(took_s)}"
        return f"{self.name}: {self.how}, {how}"

    def document(self) -> dict[str, Any]:
        """Return the same as JSON has it."""
        bars = [{**bar._asdict(), "took_s": bar.took_s} for bar in self.bars]
        return {**self._asdict(), "bars": bars}


def recorded(instances: Sequence[Instance], *, clock: bool = False) -> list[Recorded]:
    """Return the last start of each, by its own clock: 0 is its T0; with `clock`, 0 is the first T0 of all.

    Raises NotFoundError for an instance that was never started, StateError with `clock` for one of an earlier boot.
    """
    marks = [_marks_ns(inst) for inst in instances]
    for inst, found in zip(instances, marks, strict=True):
        if ZERO not in found:
            raise NotFoundError(f"{inst.name} has not been started", hint=f"vmctl start {inst.name}")
        if clock and not inst.is_of_this_boot():
            text = f"{inst.name} was started before this host was: their clocks cannot be compared"
            raise StateError(text, hint="leave out --clock")
    first_ns = min((found[ZERO] for found in marks), default=0)
    return [
        _recorded(inst, found, first_ns if clock else found[ZERO]) for inst, found in zip(instances, marks, strict=True)
    ]


def _recorded(inst: Instance, marks_ns: dict[str, int], zero_ns: int) -> Recorded:
    start_ns = marks_ns[ZERO]
    bars = [
        Bar(*lap.phase, (lap.begin_ns - zero_ns) / 1e9, (lap.end_ns - zero_ns) / 1e9, lap.end_ns <= start_ns)
        for lap in laps(marks_ns)
    ]
    how = f"{inst.state.mode} ({inst.state.accelerator})" if inst.state.accelerator else inst.state.mode
    ready_s = (marks_ns["T6"] - start_ns) / 1e9 if "T6" in marks_ns else None
    return Recorded(inst.name, how, (start_ns - zero_ns) / 1e9, ready_s, tuple(bars))


def _marks_ns(inst: Instance) -> dict[str, int]:
    """Return the marks of the last start, also those that were reported after the command that started it had ended.

    What is only observed now has no time, and is left out.
    """
    now_ns = monotonic_ns()
    with suppress(VmctlError):  # a start that has failed
        backends.load(inst.state.mode, inst.state.options).watch(inst).observe()
    return {name: at_ns for name, at_ns in inst.timeline.marks_ns.items() if at_ns < now_ns}
