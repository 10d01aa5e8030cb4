"""Lab 3: how long a start takes."""

from __future__ import annotations

from statistics import median

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, samples
from bench.labs.measuring import took

_MODES = ("host", "container", "vm")
_ROUNDS, _LIMIT_S = 3, 1.0


def _gather(place: Place) -> Evidence:
    found = place.samples("start", _MODES, _ROUNDS, command=("echo", "up"))
    seen: dict[str, Value] = {f"{mode}: start": took(found[mode], "T0", "T5") for mode in _MODES}
    return {**seen, "vm: accelerator": found["vm"][0].texts.get("accelerator", "")}


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{mode}: start" for mode in _MODES)):
        return unknown
    container, guest = (median(samples(seen, f"{mode}: start")) for mode in ("container", "vm"))
    word = HOLDS if container < _LIMIT_S <= guest else REFUTED
    return Verdict(word, f"container {quantity(container, 's')}, guest {quantity(guest, 's')} until the first output")


LAB = Lab(
    number=3,
    name="start-times",
    claim="Containers start in milliseconds, virtual machines in seconds or minutes.",
    why="It decides whether each request, test or login can get its own instance.",
    steps=(
        f"start `echo up` from the same image {_ROUNDS} times in each mode, in random order",
        "take the time from the request to the first byte of output, by this machine's clock",
        "note whether guests are emulated here",
    ),
    rule=f"holds if the median of containers is below {_LIMIT_S:g} s and that of guests is not; else refuted",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "a workload file with vm: {boot: system}: how much of its start is the distribution, not the machine?",
        "vmctl bench --metrics boot --runs 20 configs/workloads/web.yaml: intervals, and where the time goes",
        "vmctl run --mode vm --accel tcg against --accel kvm, if this machine has KVM",
    ),
    published="Firecracker's specification: at most 125 ms until the guest's init, under KVM, without a network card",
)
