"""Lab 8: processes that the host sees."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Verdict, chosen, missing

_MODES = ("host", "container", "vm")


def _gather(place: Place) -> Evidence:
    return chosen(place.facts(_MODES), "host_sees_workload host_process first_process processes", _MODES)


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "host: host_sees_workload", "container: host_process", "vm: host_process"):
        return unknown
    container, guest = (seen.get(f"{mode}: host_sees_workload", "") for mode in ("container", "vm"))
    if container and not guest:
        return Verdict(HOLDS, f"the host finds the container's processes as {container}, and of the guest only QEMU")
    return Verdict(
        REFUTED, f"the host finds {container or 'nothing'} of the container, {guest or 'nothing'} of the guest"
    )


LAB = Lab(
    number=8,
    name="host-processes",
    claim="The processes of a container are ordinary processes of the host; those of a guest are not.",
    why="What the host sees it can measure, kill and debug, and so can everybody who is root there.",
    steps=(
        "start the same workload as a process, as a container and as a guest, with a mark in its environment",
        "look for the mark in /proc/PID/environ of all processes of this machine",
        "mode host shows that the search finds what is there",
    ),
    rule="holds if the mark is found for the container and not for the guest; else refuted",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl run -d --name one tiny -- sleep 1000; then grep NSpid /proc/PID/status: two numbers",
        "kill that process from the host, and look at `vmctl ps -a`",
        "vmctl top one, in both modes: who answers?",
    ),
)
