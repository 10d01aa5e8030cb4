"""Lab 1: whose kernel is it."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, UNDECIDABLE, Evidence, Lab, Place, Verdict, chosen, missing, text

_MODES = ("host", "container", "vm")


_CONTRADICTION = "a process is in the process table of this machine if, and only if, it runs on its kernel"


def _gather(place: Place) -> Evidence:
    seen = place.facts(_MODES)
    return chosen(seen, "boot_id kernel kernel_build uptime_s host_sees_workload", ("this machine", *_MODES))


def _decide(seen: Evidence) -> Verdict:
    here, container, guest = (seen.get(f"{where}: boot_id") for where in ("this machine", "container", "vm"))
    if unknown := missing(seen, *(f"{where}: boot_id" for where in ("this machine", *_MODES))):
        return unknown
    for mode in _MODES:  # what an instance reports may be a lie; the process table of this machine is not
        if (seen[f"{mode}: boot_id"] == here) != bool(text(seen, f"{mode}: host_sees_workload")):
            return Verdict(UNDECIDABLE, f"what mode {mode} reports is not true: {_CONTRADICTION}")
    if container == here != guest:
        return Verdict(HOLDS, "the boot id in the container is that of this machine, the one in the guest is another")
    return Verdict(REFUTED, f"boot ids: {here} here, {container} in the container, {guest} in the guest")


LAB = Lab(
    number=1,
    name="shared-kernel",
    claim="A container shares the kernel of its host, a virtual machine has its own.",
    why="All else follows: what a container costs, what it can run, and what a fault of the kernel reaches.",
    steps=(
        "start the same image as a process, as a container and as a guest",
        "read /proc/sys/kernel/random/boot_id inside of each: a kernel makes it when it boots (random(4))",
        "read the boot id of this machine, and look for the processes of each in its /proc",
    ),
    rule="holds if the boot id in the container is this machine's and the one in the guest is not; undecidable if an "
    "instance reports a kernel that contradicts the process table of this machine",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl run tiny -- uname -a; vmctl run --mode vm tiny -- uname -a",
        "set vm.swappiness on this machine, and read /proc/sys/vm/swappiness in a running container and guest",
        "vm: {kernel: host} in a workload file: release and build are equal then, and the boot id?",
    ),
)
