"""Lab 22: the pieces of isolation, one at a time."""

from __future__ import annotations

from bench.labs import pieces
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Samples, Value, Verdict, missing, text
from vmctl.linux import processes

_ROUNDS = 10
_FIELDS = ("to switch on", "other namespaces", "refused", "a system call with it")


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    for name in pieces.SWITCHES:
        found = [pieces.switch_on(name) for _ in range(_ROUNDS)]
        seen[f"{name}: {_FIELDS[0]}"] = Samples("s", tuple(one.took_s for one in found))
        seen[f"{name}: {_FIELDS[1]}"] = found[0].other or "none"
        seen[f"{name}: {_FIELDS[2]}"] = found[0].refused or "nothing"
        seen[f"{name}: {_FIELDS[3]}"] = Samples("s", tuple(one.call_s for one in found))
    for name, mode in (("all of them: a container", "container"), ("another kernel: a guest", "vm")):
        started = place.start(mode)
        seen[f"{name}: {_FIELDS[0]}"] = place.start_s(started)
        seen[f"{name}: boot_id"] = place.exec(started, "cat /proc/sys/kernel/random/boot_id").split("\n")[0]
    return {**seen, "this machine: boot_id": processes.boot_id()}


def _decide(seen: Evidence) -> Verdict:
    names = [f"{name}: {field}" for name in pieces.SWITCHES for field in _FIELDS[1:3]]
    boots = ("this machine: boot_id", "all of them: a container: boot_id", "another kernel: a guest: boot_id")
    if unknown := missing(seen, *names, *boots):
        return unknown
    wrong = [name for name in pieces.SWITCHES if text(seen, f"{name}: {_FIELDS[1]}") != _own(name)]
    usual = text(seen, f"nothing: {_FIELDS[2]}")
    wrong += [
        name
        for name in ("no capabilities", "system call filter")
        if usual == "nothing" and text(seen, f"{name}: {_FIELDS[2]}") == usual
    ]
    here, container, guest = (text(seen, name) for name in boots)
    kernels = here == container != guest
    reason = f"pieces that do something else than they should: {', '.join(wrong) or 'none'}"
    return Verdict(
        HOLDS if kernels and not wrong else REFUTED, f"{reason}; only the guest has another kernel: {kernels}"
    )


def _own(name: str) -> str:
    """Return the kinds of namespaces that a piece should change: the one in its name, or none."""
    kind = name.removeprefix("namespace ")
    return kind if kind in pieces.NAMESPACES else "none"


LAB = Lab(
    number=22,
    name="isolation-ladder",
    claim="Isolation is built of separate pieces, each of which can be switched on alone.",
    why="A container is a choice of pieces. What is left out is open, and each piece has its own price.",
    steps=(
        f"switch on each piece alone, {_ROUNDS} times in a new process: seven namespaces, no capabilities, a filter",
        "note how long that takes, whose namespaces are others now, and which of three attempts are refused",
        "take the time of a system call with each piece; start a container and a guest, and compare the boot ids",
    ),
    rule="holds if each namespace changes itself only, no capabilities and the filter refuse something, and only the "
    "guest has another kernel",
    modes=("container", "vm"),
    gather=_gather,
    decide=_decide,
    next=(
        "unshare --net ip link: what is left?",
        "unshare --user --map-root-user id: who are you now, and what can you do?",
        "vmctl up --explain configs/workloads/web.yaml: find each piece in a real start",
    ),
)
