"""Lab 11: when memory is taken from the host."""

from __future__ import annotations

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Samples, Value, Verdict, missing, samples

_MODES = ("container", "vm")
_MIB = (256, 1024)
_USED_MIB = (32, 24, 28, 36, 40, 44, 48)


def _gather(place: Place) -> Evidence:
    used_mib = place.parameter("used_mib")
    seen: dict[str, Value] = {"in use": Samples("bytes", (float(used_mib << 20),))}
    for mode in _MODES:
        for size_mib in _MIB:
            name = place.start(mode, memory_bytes=size_mib << 20)
            seen[f"{mode} with {size_mib} MiB: idle"] = place.memory(name)
            if size_mib == _MIB[-1]:
                place.exec(name, f"dd if=/dev/zero of=/dev/shm/lab bs=1M count={used_mib}")
                seen[f"{mode} with {size_mib} MiB: in use"] = place.memory(name)
            place.vmctl("rm", "-f", name)
    return seen


def _decide(seen: Evidence) -> Verdict:
    names = [f"{mode} with {_MIB[-1]} MiB: idle" for mode in _MODES]
    if unknown := missing(seen, *names):
        return unknown
    container, guest = (samples(seen, name)[0] for name in names)
    reserved = guest >= (_MIB[-1] << 20) * 0.9
    reason = f"with {_MIB[-1]} MiB allowed, an idle container takes {quantity(container, 'bytes')}"
    word = HOLDS if reserved and container < _MIB[-1] << 16 else REFUTED
    return Verdict(word, f"{reason}, an idle guest {quantity(guest, 'bytes')}")


LAB = Lab(
    number=11,
    name="reserved-memory",
    claim="The memory of a virtual machine is reserved when it starts, that of a container grows as it is used.",
    why="It decides how many instances a host can have whose limits are larger than their needs.",
    steps=(
        f"start a container and a guest with {_MIB[0]} MiB and with {_MIB[1]} MiB, and wait until their memory is flat",
        "read what is charged to their control groups on this machine: a guest's memory is memory of QEMU",
        f"write {_USED_MIB[0]} MiB, or what the seed draws, to /dev/shm in the larger ones, and read it again",
    ),
    rule="holds if an idle guest takes 90 % of what it is allowed and a container less than 1/16; else refuted",
    modes=_MODES,
    parameters={"used_mib": _USED_MIB},
    gather=_gather,
    decide=_decide,
    next=(
        "QEMU with -mem-prealloc or hugepages: what is the answer then?",
        "vmctl stats: memory against limit, in both modes",
        "delete the file in /dev/shm, and see lab 12",
    ),
)
