"""Lab 23: a container in a guest."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, text
from vmctl.linux import processes

_MARK = "lab-nested"
_LOOK = "echo $$; cat /proc/sys/kernel/random/boot_id; ls -d /proc/[0-9]* | wc -l; hostname"
# namespaces and a root, made by unshare(1) and chroot(1): what a container is made of
_NESTED = f"""mkdir -p /tmp/root && mount --bind / /tmp/root
unshare -m -p -u -i -n -f chroot /tmp/root sh -c 'mount -t proc proc /proc; hostname {_MARK}; {_LOOK}'
cat /proc/sys/kernel/random/boot_id; ls -d /proc/[0-9]* | wc -l; hostname"""
_NAMES = (
    *("container in the guest: its pid", "container in the guest: boot_id", "container in the guest: processes"),
    *("container in the guest: host name", "guest: boot_id", "guest: processes", "guest: host name"),
)


def _gather(place: Place) -> Evidence:
    name = place.start("vm")
    lines = place.exec(name, _NESTED).split("\n")
    seen: dict[str, Value] = dict(zip(_NAMES, lines, strict=False))
    return {**seen, "this machine: boot_id": processes.boot_id()}


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "this machine: boot_id", *_NAMES):
        return unknown
    places = ("container in the guest", "guest", "this machine")
    inner, outer, here = (text(seen, f"{place}: boot_id") for place in places)
    apart = text(seen, _NAMES[0]) == "1" and text(seen, _NAMES[3]) == _MARK != text(seen, _NAMES[6])
    word = HOLDS if apart and inner == outer != here else REFUTED
    return Verdict(
        word,
        f"process {text(seen, _NAMES[0])} of its own namespaces in the guest, on "
        f"{'the kernel of the guest' if inner == outer else 'another kernel than the guest'}, "
        f"{'not on this machine' if inner != here else 'which is that of this machine'}'s",
    )


LAB = Lab(
    number=23,
    name="nested",
    claim="Containers can run inside a virtual machine, and often do.",
    why="What is measured in such a container pays for the guest, too: it cannot be compared with that guest.",
    steps=(
        "start a guest, and in it a shell with its own namespaces and root, by unshare(1) and chroot(1)",
        "read pid, host name, number of processes and boot id in both",
        "compare the boot ids with that of this machine",
    ),
    rule="holds if the shell is process 1 with another host name, on the kernel of the guest and not of this machine",
    modes=("vm",),
    gather=_gather,
    decide=_decide,
    next=(
        "dmesg in both: whose messages are these?",
        "ps on the host: can you find that shell?",
        "lab 13 in the guest: where did the time of the container go?",
    ),
    published="four of eight public hand-ins of courses compared a container inside a guest with that guest",
)
