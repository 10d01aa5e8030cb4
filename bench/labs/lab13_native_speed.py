"""Lab 13: whether work is as fast as on the host."""

from __future__ import annotations

from statistics import median

from bench.labs.lab import (
    HOLDS,
    REFUTED,
    UNDECIDABLE,
    Evidence,
    Lab,
    Place,
    Value,
    Verdict,
    disturbed,
    missing,
    samples,
)
from bench.labs.measuring import values

_SHARED, _MODES = ("host", "container"), ("host", "container", "vm")
_ROUNDS, _GUEST_ROUNDS = 5, 2
_WORK = {"sort": "cpu", "memory": "cpu", "getppid": "syscall", "open_close": "syscall", "spawn": "syscall"}
_NATIVE, _NEARLY = 1.1, 1.25


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    for kind in ("cpu", "syscall"):
        found = {**place.samples(kind, _SHARED, _ROUNDS), **place.samples(kind, ("vm",), _GUEST_ROUNDS)}
        for mode in _MODES:
            for work in (name for name, each in _WORK.items() if each == kind):
                seen[f"{mode}: {work}"] = values(found[mode], f"{work}_s", "s")
        seen["vm: accelerator"] = found["vm"][0].texts.get("accelerator", "")
    return seen


def _times(seen: Evidence, mode: str, work: str) -> float:
    """Return how many times the host's a work takes: by its fastest sample or its median, the smaller one.

    Other work on the host can only add to a sample.
    """
    one, host = (samples(seen, f"{where}: {work}") for where in (mode, "host"))
    return min(least(one) / least(host) for least in (min, median))


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "vm: accelerator", *(f"{mode}: {work}" for mode in _MODES for work in _WORK)):
        return unknown
    times = {mode: {work: _times(seen, mode, work) for work in _WORK} for mode in ("container", "vm")}
    reason = "; ".join(
        f"{mode}: " + ", ".join(f"{work} {value:.2f}" for work, value in one.items()) for mode, one in times.items()
    )
    steady = [work for work in _WORK if not disturbed(seen, *(f"{mode}: {work}" for mode in _SHARED))]
    if any(times["container"][work] > _NATIVE for work in steady):
        return Verdict(REFUTED, f"times of the host's: {reason}")
    if len(steady) < len(_WORK):
        left = ", ".join(work for work in _WORK if work not in steady)
        return Verdict(UNDECIDABLE, f"other work on this machine has disturbed {left}; times of the host's: {reason}")
    if seen["vm: accelerator"] == "tcg":
        return Verdict(UNDECIDABLE, f"guests are emulated here, which does not measure virtual machines; {reason}")
    return Verdict(REFUTED if max(times["vm"].values()) > _NEARLY else HOLDS, f"times of the host's: {reason}")


LAB = Lab(
    number=13,
    name="native-speed",
    claim="Containers run at native speed, virtual machines nearly so.",
    why="What is slower, and by how much, depends on the work: there is no one number for a mode.",
    steps=(
        "run the same static program in each mode: sorting, memory-bound work, three kinds of system calls",
        "take the time of each from its output, by this machine's clock",
        "divide the fastest sample of each by the host's, and the median by the host's: the smaller ratio counts",
    ),
    rule=f"holds if no work takes more than {_NATIVE} times the host's in a container, and {_NEARLY} times in a guest; "
    "undecidable if only emulated guests are slower, or other work disturbs",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "container: {seccomp: unconfined}: which of the numbers changes? (lab 29)",
        "vmctl bench --metrics cpu,syscall,io,net --runs 20 configs/workloads/web.yaml: intervals",
        "the same under KVM: what becomes of `spawn`?",
    ),
)
