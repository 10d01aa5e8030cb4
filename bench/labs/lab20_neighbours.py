"""Lab 20: what a neighbour's load does."""

from __future__ import annotations

import os
import time
from statistics import median

from bench.formatting import quantity
from bench.labs.lab import (
    HOLDS,
    REFUTED,
    UNDECIDABLE,
    Evidence,
    Lab,
    Place,
    Samples,
    Value,
    Verdict,
    disturbed,
    missing,
    samples,
)

_MODES = ("container", "vm")
_STATES = ("alone", "next to a load", "next to a limited load")
_TURNS = 10
_SPIN = "echo up; i=0; while :; do i=$((i+1)); done"
_WORK = "i=0; while [ $i -lt {} ]; do i=$((i+1)); done"
_COUNTS = {"container": 100_000, "vm": 10_000}  # about the same time if guests are emulated
_LIMIT, _HURTS = 0.1, 1.3


def _gather(place: Place) -> Evidence:
    measured = {mode: place.start(mode) for mode in _MODES}
    seen: dict[str, Value] = {}
    for state in _STATES:
        limits = {"cpus": _LIMIT} if "limited" in state else {}
        count = 0 if state == "alone" else os.cpu_count() or 1
        load = [place.start("container", _SPIN, **limits) for _ in range(count)]
        for mode, name in measured.items():
            seen[f"{mode}: {state}"] = _times(place, name, _COUNTS[mode])
        for name in load:
            place.vmctl("rm", "-f", name)
    return seen


def _times(place: Place, name: str, count: int) -> Samples:
    """Return the seconds of some turns of the same work, by the clock of this machine."""
    found = []
    for _ in range(_TURNS):
        begun_s = time.monotonic()
        place.exec(name, _WORK.format(count))
        found.append(time.monotonic() - begun_s)
    return Samples("s", tuple(found))


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{mode}: {state}" for mode in _MODES for state in _STATES)):
        return unknown
    right, parts = True, []
    for mode in _MODES:
        alone, beside, limited = (median(samples(seen, f"{mode}: {state}")) for state in _STATES)
        right &= beside >= alone * _HURTS and limited - alone < (beside - alone) / 2
        parts.append(
            f"{mode}: {quantity(alone, 's')} alone, {beside / alone:.2f} times as long next to a load, "
            f"{limited / alone:.2f} next to a limited one"
        )
    noisy = disturbed(seen, *(f"{mode}: {_STATES[0]}" for mode in _MODES))
    if noisy and not right:
        return Verdict(UNDECIDABLE, f"other work on this machine has disturbed {', '.join(noisy)}; {'; '.join(parts)}")
    return Verdict(HOLDS if right else REFUTED, "; ".join(parts))


LAB = Lab(
    number=20,
    name="neighbours",
    claim="The load of a neighbour hurts, and limits help.",
    why="Instances hide from each other what they run, not that they run.",
    steps=(
        f"run the same work {_TURNS} times in a container and in a guest, and take the time of each turn",
        "the same while as many containers as there are processors do nothing but count",
        f"the same while each of them may use {_LIMIT:g} processors",
    ),
    rule=f"holds if the median is {_HURTS:g} times as long next to the load in both modes, and the limit takes "
    "back at least half of that; undecidable if it does not and other work disturbs",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "a neighbour that writes to the disk: which limit helps?",
        "nice 19 instead of a limit: what does the measured one see?",
        "two guests as neighbours: do they take as much as containers?",
    ),
)
