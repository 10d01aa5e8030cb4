"""Lab 21: what a crash of the kernel takes down."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, text
from vmctl.linux import processes

_NEIGHBOURS = ("container", "vm")
_BOOT = "cat /proc/sys/kernel/random/boot_id"
_PANIC = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"  # Documentation/admin-guide/sysrq.rst


def _gather(place: Place) -> Evidence:
    neighbours = {mode: place.start(mode) for mode in _NEIGHBOURS}
    victim = place.start("vm", f"echo up; sleep 3; {_PANIC}")  # a crash of a throw-away guest; never one of a container
    before = {mode: place.exec(name, _BOOT).split("\n")[0] for mode, name in neighbours.items()}
    seen: dict[str, Value] = {"this machine: before": processes.boot_id()}
    place.vmctl("wait", victim)
    answer = place.vmctl("inspect", "--format", "{{.State.Status}} {{.State.Error}}", victim)
    seen["guest that crashed: state"] = answer.split("\n")[0]
    for mode, name in neighbours.items():
        seen[f"{mode} next to it: before"] = before[mode]
        seen[f"{mode} next to it: afterwards"] = place.exec(name, _BOOT).split("\n")[0]
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return {**seen, "this machine: afterwards": file.read().strip()}


def _decide(seen: Evidence) -> Verdict:
    places = ("this machine", *(f"{mode} next to it" for mode in _NEIGHBOURS))
    state = text(seen, "guest that crashed: state")
    names = [f"{place}: {when}" for place in places for when in ("before", "afterwards")]
    if unknown := missing(seen, "guest that crashed: state", *names):
        return unknown
    changed = [place for place in places if text(seen, f"{place}: before") != text(seen, f"{place}: afterwards")]
    crashed = "panic" in state.lower()
    word = HOLDS if crashed and not changed else REFUTED
    return Verdict(word, f"the guest: {state}; another boot than before: {', '.join(changed) or 'nowhere'}")


LAB = Lab(
    number=21,
    name="kernel-crash",
    claim="A crash of a kernel takes down what shares it: a guest's crash only the guest.",
    why="A fault of the kernel in a container is one of the host, and of all other containers.",
    steps=(
        "start a container, a guest, and a second guest to throw away",
        "let the kernel of that one crash: echo c >/proc/sysrq-trigger",
        "read the boot ids of the others and of this machine again. The crash is never tried in a container",
    ),
    rule="holds if the guest ended with a panic, and this machine, the container and the other guest run on as before",
    modes=_NEIGHBOURS,
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl logs --boot of a guest that crashed: what are a kernel's last words?",
        "vmctl run tiny -- sh -c 'echo c >/proc/sysrq-trigger': who refuses it? Read before you try",
        "restart: on-failure for a guest: how long until it answers again?",
    ),
)
