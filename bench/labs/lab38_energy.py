"""Lab 38: whether containers draw less energy than guests for the same work."""

from __future__ import annotations

import json
from statistics import median

from bench.labs import energy
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
    missing,
    samples,
    text,
)

_MODES = ("container", "vm")
_ROUNDS, _MORE = 5, 1.05
_WORK = "i=0; while [ $i -lt 40 ]; do dd if=/dev/zero bs=1M count=32 2>/dev/null | sha256sum; i=$((i+1)); done"
_COUNTERS, _ACCELERATOR, _EMULATED = "this machine: energy counters", "vm: accelerator", "tcg"


def _gather(place: Place) -> Evidence:
    try:
        counters = energy.Counters()
    except PermissionError:
        return {_COUNTERS: "none: this user may not read them"}
    except OSError:
        return {_COUNTERS: f"none: {energy.FOLDER} has no counter"}
    names = {mode: place.start(mode, network="none") for mode in _MODES}
    (about,) = json.loads(place.vmctl("inspect", names["vm"]).rpartition("\n")[0])
    seen: dict[str, Value] = {_COUNTERS: "read", _ACCELERATOR: str(about["accelerator"])}
    if seen[_ACCELERATOR] == _EMULATED:  # the work would take minutes
        return seen
    found: dict[str, list[float]] = {mode: [] for mode in _MODES}
    for _ in range(_ROUNDS):
        for mode, name in names.items():
            before = counters.read_uj()
            place.exec(name, _WORK)
            found[mode].append(counters.joules_since(before))
    return seen | {f"{mode}: joules": Samples("1", tuple(values)) for mode, values in found.items()}


def _decide(seen: Evidence) -> Verdict:
    counters = text(seen, _COUNTERS)
    if counters.startswith("none"):
        return Verdict(UNDECIDABLE, f"energy counters of the processors: {counters.partition(': ')[2]}")
    if unknown := missing(seen, _ACCELERATOR):
        return unknown
    if text(seen, _ACCELERATOR) == _EMULATED:
        return Verdict(UNDECIDABLE, "guests are emulated here: what they draw is the energy of emulation")
    if unknown := missing(seen, *(f"{mode}: joules" for mode in _MODES)):
        return unknown
    container, guest = (samples(seen, f"{mode}: joules") for mode in _MODES)
    reason = f"the work takes {median(container):.3g} J in a container, {median(guest):.3g} J in a guest"
    more = [one >= _MORE * other for one, other in zip(guest, container, strict=False)]
    if len(set(more)) > 1:
        return Verdict(UNDECIDABLE, f"{reason}; more in {sum(more)} of {len(more)} rounds")
    return Verdict(HOLDS if more[0] else REFUTED, reason)


LAB = Lab(
    number=38,
    name="energy",
    claim="Containers draw less energy than virtual machines for the same work.",
    why="Power and cooling are a large part of what a data centre costs.",
    steps=(
        "read the energy counters of the processors (RAPL), of which many clouds show none",
        f"compute the same digests in a container and in a guest, in {_ROUNDS} rounds, and read the counters again",
        "the counters are of the whole machine: nothing else may run meanwhile",
    ),
    rule=f"holds if the guest took at least {_MORE:g} times the energy in each round, refuted if it did in none; else, "
    "without counters, or if guests are emulated, undecidable",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "the same work of a network or a disk: where does the guest take more?",
        "an idle container and an idle guest, ten minutes each: what does waiting take?",
        "a meter at the plug: which share of it do the counters see?",
    ),
    published="arXiv 1809.03724: containers draw less energy than virtual machines",
)
