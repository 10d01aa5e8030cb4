"""Lab 7: limits that a container has and does not see."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Verdict, chosen, missing, text

_MODES = ("container", "vm")
_MIB, _CPUS = (128, 136, 144, 152, 160, 176, 192), 0.5


def _gather(place: Place) -> Evidence:
    seen = place.facts(_MODES, cpus=_CPUS, memory_bytes=place.parameter("memory_mib") << 20)
    return chosen(seen, "memory_kib granted_memory processors granted_processors", ("this machine", *_MODES))


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{place}: memory_kib" for place in ("this machine", *_MODES))):
        return unknown
    here, container, guest = (int(text(seen, f"{place}: memory_kib")) for place in ("this machine", *_MODES))
    limit = int(text(seen, "parameter: memory_mib") or _MIB[0]) << 10
    blind = container > limit and abs(container - here) < here / 20
    if blind and guest <= limit:
        return Verdict(HOLDS, f"of {limit} KiB granted, the container sees {container}, the guest {guest}")
    return Verdict(
        REFUTED, f"of {limit} KiB granted, the container sees {container} and the guest {guest}, here are {here}"
    )


LAB = Lab(
    number=7,
    name="limits-unseen",
    claim="Control groups limit a container, but `free` and `nproc` in it show the host.",
    why="Programs that size their heaps and thread pools by these figures take too much, and the kernel kills them.",
    steps=(
        f"start a container and a guest with {_MIB[0]} MiB, or what the seed draws, and {_CPUS} processors",
        "read MemTotal and the processors in /proc inside of each",
        "compare them with the limits in effect, read back from the control group and from QEMU",
    ),
    rule="holds if MemTotal is this machine's (to 5 %) in the container, and at most the limit in the guest",
    modes=_MODES,
    parameters={"memory_mib": _MIB},
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl run -m 16M tiny -- dd if=/dev/zero of=/dev/shm/file bs=1M count=40: what ends it?",
        "read memory.max or memory.limit_in_bytes below /sys/fs/cgroup in the container",
        "the same with --cpus 1.5: how many processors has the guest, and why?",
    ),
)
