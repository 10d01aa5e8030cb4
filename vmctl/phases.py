"""The phases of a start, in every mode: their names, titles and reasons, and how long each took.

A phase ends with a mark of the timeline (vmctl/instances/timeline.py) that has its name, and begins with the end of the
phase before. What was not observed has no mark, so its time is part of the phase after it. Marks of the measurement
rules that end a phase in every mode are in `_ENDS`. A mode has the phases that it marks.
"""

from __future__ import annotations

from collections.abc import Mapping

from vmctl.named import NamedTuple

BEGUN = "begun"  # the mark with which the first phase begins
ZERO = "T0"  # what is before is preparation: made before the start is measured


class Phase(NamedTuple):
    """A phase: its name in records, the title that is shown, and one line of why it is there."""

    name: str
    title: str
    why: str


class Lap(NamedTuple):
    """A phase of one start, in nanoseconds of CLOCK_MONOTONIC."""

    phase: Phase
    begin_ns: int
    end_ns: int

    @property
    def took_s(self) -> float:
        """How long it took, in seconds."""
        return (self.end_ns - self.begin_ns) / 1e9


PHASES = {
    one.name: one
    for one in (
        # preparation
        Phase("image", "image", "its layers are found, and in containers mounted: read-only, once for all instances"),
        Phase("disk", "writable layer", "what the instance changes is written here, so the image stays as it is"),
        Phase("cable", "network place", "an address is reserved; a guest gets its tap device, the end of a cable"),
        Phase("limits", "control group", "the kernel counts and limits what is in it, from the first instruction on"),
        Phase("seed", "seed", "the guest's only configuration, as cloud-init reads it: a small disk"),
        Phase("plan", "plan", "all that can be known beforehand is computed now, so that the start itself is short"),
        # a process with namespaces, or without
        Phase("clone", "clone3", "one system call makes the process with its namespaces, in its control group"),
        Phase("root", "root", "the layers become one file tree, and pivot_root makes it the root: the host is gone"),
        Phase("mounts", "mounts", "/proc, /dev, /sys and volumes, as seen from inside the new namespaces"),
        # a guest
        Phase("qemu", "QEMU", "a guest is a process of the host: libvirt confines and executes QEMU"),
        Phase("firmware", "firmware", "loads the kernel, which unpacks itself: its clock does not run yet"),
        Phase("kernel", "kernel", "an own kernel finds its devices and unpacks the initramfs; then our init runs"),
        Phase("layers", "layers", "init finds the disks of the image and makes one file tree of them"),
        Phase("settings", "settings", "init reads the seed: host name, files, users, volumes"),
        Phase("system", "system", "the init of the image has started its services"),
        Phase("cloud-init", "cloud-init", "reads the seed, and does what the user's user-data asks for"),
        # both
        Phase("network", "network", "the interface gets its address and routes, inside"),
        Phase("exec", "workload", "the user changes, privileges are dropped, the command is executed"),
        Phase("output", "first output", "the first byte that the workload has written"),
        Phase("answer", "first answer", "the probe of `ready:` succeeds; without one, its system is up"),
    )
}

_ENDS = {ZERO: "plan", "T5": "output", "TS": "cloud-init", "T6": "answer"}
_ORDER = {name: number for number, name in enumerate(PHASES)}  # of marks with the same time


def laps(marks_ns: Mapping[str, int]) -> list[Lap]:
    """Return the phases of a start that have ended so far, in the order of time; [] for a record without phases.

    The first answer is the last one: what is observed later, as a first output can be, is not part of the start.
    """
    ends = [(at_ns, _ENDS.get(name, name)) for name, at_ns in marks_ns.items()]
    ended = sorted((at_ns, _ORDER[name]) for at_ns, name in ends if name in PHASES)
    before = marks_ns.get(BEGUN, marks_ns.get(ZERO))
    if before is None:
        return []
    phases, found = list(PHASES.values()), []
    for at_ns, number in ended:
        if at_ns >= before:
            found.append(Lap(phases[number], before, at_ns))
            before = at_ns
        if phases[number].name == "answer":
            break
    return found
