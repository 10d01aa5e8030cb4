"""Lab 12: whether a guest gives memory back."""

from __future__ import annotations

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, samples
from bench.labs.measuring import values

_MODES = ("container", "vm")
_STATES = ("idle", "loaded", "freed")
_SHARE = 0.5


def _gather(place: Place) -> Evidence:
    found = place.samples("load", _MODES)
    seen: dict[str, Value] = {"in use": values(found["vm"], "set_bytes", "bytes")}
    for mode in _MODES:
        # without a control group, as an ordinary user can be: what the processes of the instance have in memory
        counted = "cgroup" if values(found[mode], "idle_cgroup_bytes", "bytes").values else "pss"
        seen[f"{mode}: counted"] = {"cgroup": "charged to the control group", "pss": "PSS of its processes"}[counted]
        for state in _STATES:
            seen[f"{mode}: memory {state}"] = values(found[mode], f"{state}_{counted}_bytes", "bytes")
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{mode}: memory {state}" for mode in _MODES for state in _STATES)):
        return unknown
    shares = {}
    for mode in _MODES:
        idle, loaded, freed = (sum(samples(seen, f"{mode}: memory {state}")) for state in _STATES)
        shares[mode] = (loaded - freed) / (loaded - idle) if loaded > idle else 0.0
    reason = ", ".join(f"{mode}: {quantity(share, 'share')}" for mode, share in shares.items())
    return Verdict(HOLDS if shares["vm"] >= _SHARE else REFUTED, f"of the memory taken was given back: {reason}")


LAB = Lab(
    number=12,
    name="memory-back",
    claim="A virtual machine can give memory back to its host.",
    why="Without it a guest keeps for ever what it has used once, even if it is idle.",
    steps=(
        "run a program in a container and in a guest that touches memory at a signal, and unmaps it at the next",
        "read what is charged to the control group when it is idle, in use and freed, each time once it is flat",
        "without control groups (an ordinary user can be so), PSS of its processes is read (proc(5))",
        "a guest reports its free pages to its host two seconds after they are freed (virtio-balloon)",
    ),
    rule=f"holds if the guest gives back at least {_SHARE:.0%} of what it has taken; else refuted",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl bench --metrics memory configs/workloads/web.yaml: the same with three rounds",
        "read a large file in the guest: its page cache is not free memory. Who gives it back?",
        "vmctl update -m of a running guest: what does it answer?",
    ),
)
