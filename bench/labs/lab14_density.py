"""Lab 14: how many fit on a host."""

from __future__ import annotations

from statistics import median

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, samples

COUNTS = {"container": 12, "vm": 3}
_THOUSAND = 1000


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    for mode, count in COUNTS.items():
        found = place.crowd(mode, count)
        for name in ("start", "PSS", "kernel memory", "memory available here"):
            seen[f"{mode}: {name}"] = found[name]
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{mode}: {name}" for mode in COUNTS for name in ("PSS", "memory available here"))):
        return unknown
    fit = {}
    for mode in COUNTS:
        kernel = samples(seen, f"{mode}: kernel memory") or (0.0,)
        each = median(samples(seen, f"{mode}: PSS")) + median(kernel)
        fit[mode] = samples(seen, f"{mode}: memory available here")[0] / max(each, 1.0)
    free = quantity(samples(seen, "container: memory available here")[0], "bytes")
    reason = f"in the {free} available here fit about {fit['container']:,.0f} containers or {fit['vm']:,.0f} guests"
    return Verdict(HOLDS if fit["container"] >= _THOUSAND > fit["vm"] else REFUTED, f"{reason} that are idle")


LAB = Lab(
    number=14,
    name="density",
    claim="Thousands of containers fit on one host, but not virtual machines.",
    why="The number per host is the price of isolation, and memory usually limits it first.",
    steps=(
        f"start {COUNTS['container']} containers and {COUNTS['vm']} guests of one image, one after the other",
        "add the PSS of the processes of each, helpers too, and the kernel's memory in its control group",
        "divide the memory that was available by the median of one. This is an estimate: nobody has started them all",
    ),
    rule=f"holds if at least {_THOUSAND} containers and fewer guests would fit in the memory that is available",
    modes=("container", "vm"),
    gather=_gather,
    decide=_decide,
    next=(
        "make crowd COUNT=300, in a clone of vmctl: what grows besides memory?",
        "ulimit -u, /proc/sys/kernel/pid_max: what is the next limit?",
        "the same with a workload that uses 50 MiB: what is the ratio now?",
    ),
    published="kubernetes-sigs/agent-sandbox: 120 runc, 80 gVisor, 40 and 20 Kata on one node before starts failed",
)
