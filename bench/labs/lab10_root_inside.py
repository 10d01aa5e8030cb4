"""Lab 10: root inside is not root outside."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Verdict, missing, text
from vmctl.linux import usernamespace

_MODES = ("container", "vm")
_ATTEMPTS = {
    "make a device": "mknod /tmp/lab b 7 0",
    "mount a file system": "mkdir -p /tmp/lab-mount && mount -t tmpfs lab /tmp/lab-mount",
    "set a kernel setting": "echo 61 >/proc/sys/vm/swappiness",
    "set the clock": "date -s @1600000000; test $(date +%s) -lt 1700000000",  # date of busybox ends with 0 anyway
    "be spared when memory runs out": "echo -1000 >/proc/self/oom_score_adj",
}
_USER = "this machine: user of vmctl"
_SCRIPT = "echo map: $(cat /proc/self/uid_map)\n" + "\n".join(
    f"if ({command}) >/dev/null 2>&1; then echo '{name}: done'; else echo '{name}: refused'; fi"
    for name, command in _ATTEMPTS.items()
)


def _gather(place: Place) -> Evidence:
    seen = {_USER: str(usernamespace.host_uid())}
    for mode in _MODES:
        for line in place.ask(mode, _SCRIPT)[0].splitlines():
            name, _, value = line.partition(": ")
            if value:
                seen[f"{mode}: {name}"] = value
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{mode}: {name}" for mode in _MODES for name in ("map", *_ATTEMPTS))):
        return unknown
    # a map shows ids of the namespace above: of an ordinary user, 0 is the user there and not root of this machine
    mapped = text(seen, "container: map").split()[1:2] != ["0"] or text(seen, _USER) not in ("", "0")
    done = [name for name in _ATTEMPTS if seen[f"container: {name}"] == "done"]
    refused = [name for name in _ATTEMPTS if seen[f"vm: {name}"] != "done"]
    if mapped and not done and not refused:
        return Verdict(HOLDS, "uid 0 of the container is another one outside, and every attempt was refused")
    return Verdict(
        REFUTED,
        f"mapped: {mapped}; done in the container: {done or 'nothing'}; refused in the guest: {refused or 'nothing'}",
    )


LAB = Lab(
    number=10,
    name="root-inside",
    claim="root in a user namespace is not root outside; root of a guest is root of its own kernel.",
    why="It decides what a program that has taken over a container can do to the host.",
    steps=(
        "read /proc/self/uid_map as root in a container and in a guest, and the user who runs vmctl here",
        f"try in each as root: {', '.join(_ATTEMPTS)}",
    ),
    rule="holds if uid 0 of the container is another one outside, all attempts fail there, and all work in the guest",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "vmctl run --userns host tiny -- cat /proc/self/uid_map: what protects the host now?",
        "grep Cap /proc/self/status in both: which capabilities are left?",
        "never try these in mode host: there it is this machine's clock",
    ),
)
