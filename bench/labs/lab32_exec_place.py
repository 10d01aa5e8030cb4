"""Lab 32: where a command of exec runs."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, text
from vmctl.linux import processes

_MODES = ("container", "vm")
_WHERE = "echo $(cat /proc/sys/kernel/random/boot_id) $(readlink /proc/self/ns/pid)"
_NAMES = ("the workload", "exec")


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {"this machine: boot_id": processes.boot_id()}
    for mode in _MODES:
        name = place.start(mode, f"{_WHERE}; sleep 10000")
        seen[f"{mode}: the workload"] = place.vmctl("logs", name).split("\n")[0]
        seen[f"{mode}: exec"] = place.exec(name, _WHERE).split("\n")[0]
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "this machine: boot_id", *(f"{mode}: {name}" for mode in _MODES for name in _NAMES)):
        return unknown
    same = {mode: text(seen, f"{mode}: exec") == text(seen, f"{mode}: the workload") for mode in _MODES}
    here = text(seen, "this machine: boot_id")
    own = not text(seen, "vm: exec").startswith(here)
    reason = "; ".join(f"{mode}: {'the same place' if one else 'another place'}" for mode, one in same.items())
    return Verdict(
        HOLDS if all(same.values()) and own else REFUTED, f"{reason}; not on this machine's kernel in vm: {own}"
    )


LAB = Lab(
    number=32,
    name="exec-place",
    claim="A command of exec runs where the workload of its instance runs.",
    why="A tool whose `exec` of a guest runs on the host gives numbers of the host, and a hole.",
    steps=(
        "start a workload in each mode that prints the boot id of its kernel and its PID namespace",
        "print the same by exec, and compare both",
        "compare the boot id in the guest with this machine's",
    ),
    rule="holds if workload and exec print the same in each mode, and the guest's boot id is not this machine's",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl inspect: the receipt of the start, against which each exec is checked",
        "nsenter -t PID -m: which namespaces are missing?",
        "docker exec: how would you find out in which place it has run?",
    ),
)
