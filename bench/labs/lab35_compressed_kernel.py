"""Lab 35: the decompression of the kernel as a part of a guest's start."""

from __future__ import annotations

import struct

from bench.labs import boots
from bench.labs.lab import Evidence, Lab, Place, Verdict
from vmctl.spec.workload import VmOptions

_PAYLOAD_LENGTH = 0x24C  # in the header of a bzImage (Linux: Documentation/arch/x86/boot.rst)
_WAYS = ("with an uncompressed kernel", "with a compressed kernel")


def _gather(place: Place) -> Evidence:
    packed = place.kernel(_hidden)
    return boots.gather(place, dict(zip(_WAYS, ({}, {"vm": VmOptions(kernel=packed)}), strict=True)))


def _hidden(image: bytes) -> bytes:
    """Return the kernel without the length of its payload, which vmctl needs to take the uncompressed kernel out."""
    content = bytearray(image)
    struct.pack_into("<I", content, _PAYLOAD_LENGTH, 0)
    return bytes(content)


def _decide(seen: Evidence) -> Verdict:
    return boots.decide(seen, _WAYS)


LAB = Lab(
    number=35,
    name="compressed-kernel",
    claim="The decompression of its kernel is a part of what a guest's start costs.",
    why="A kernel is compressed for slow disks and small boot partitions. A guest has neither, and unpacks it.",
    steps=(
        "add a copy of the guests' kernel whose header does not name its payload: vmctl cannot unpack it",
        f"start a guest in {boots.ROUNDS} rounds with the kernel that vmctl has unpacked once, and with that copy",
        "take the processor time of the whole guest until its first output, as `vmctl stats` counts it",
    ),
    rule=boots.RULE,
    modes=("vm",),
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl inspect of a guest: what are machine.kernel_form and its firmware?",
        "make boot, in a clone of vmctl: the three other savings of a start, each alone",
        "where does a compressed kernel put itself? (KASLR, docs/boot.md)",
    ),
    published="Firecracker (its SPECIFICATION and the data of NSDI 2020): about 40 ms of a boot of 125 ms",
)
