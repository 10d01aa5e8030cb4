"""Lab 18: break it, delete it, start again."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, samples, text
from vmctl.instances import instance
from vmctl.linux import processes

_MODES = ("container", "vm")
_DIGEST = """set -- -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp
set -- "$@" -o -path /etc/hosts -o -path /etc/hostname -o -path /etc/resolv.conf
find / -xdev \\( "$@" \\) -prune -o -type f -exec sha256sum {} + | sort | sha256sum | head -c 16"""
_BREAK = f"echo broken >/srv/broken; rm -rf /usr /var /etc/passwd; {_DIGEST}"


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    for mode in _MODES:
        name = place.start(mode)
        seen[f"{mode}: files"] = place.exec(name, _DIGEST).split("\n")[0]
        seen[f"{mode}: files when broken"] = place.exec(name, _BREAK).split("\n")[0]
        pid, pid_start = instance.load(name).state.pid, instance.load(name).state.pid_start
        place.vmctl("rm", "-f", name)
        seen[f"{mode}: left of it"] = (
            "something" if name in instance.names() or processes.alive(pid, pid_start) else "nothing"
        )
        name = place.start(mode)
        seen[f"{mode}: files of the next one"] = place.exec(name, _DIGEST).split("\n")[0]
        seen[f"{mode}: until the next one runs"] = place.start_s(name)
    return seen


def _decide(seen: Evidence) -> Verdict:
    whats = ("files", "files when broken", "left of it", "files of the next one")
    if unknown := missing(seen, *(f"{mode}: {what}" for mode in _MODES for what in whats)):
        return unknown
    right, parts = True, []
    for mode in _MODES:
        first, broken, left, after = (text(seen, f"{mode}: {what}") for what in whats)
        right &= first == after != broken and left == "nothing"
        seconds = samples(seen, f"{mode}: until the next one runs")
        parts.append(
            f"{mode}: " + ("pristine" if first == after else "changed") + "".join(f" after {s:.2f} s" for s in seconds)
        )
    return Verdict(HOLDS if right else REFUTED, "; ".join(parts))


LAB = Lab(
    number=18,
    name="back-out",
    claim="To back out is to stop and delete: the next instance is pristine.",
    why="It is why a broken server is replaced and not repaired.",
    steps=(
        "start an instance in each mode, and compute a digest of all files",
        "delete half of its files, and compute it again",
        "remove it, look for its files and processes, start the next one, and compute it again",
    ),
    rule="holds if the digest of the next one is that of the first, not of the broken one, and nothing is left of that",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "the same with a named volume: is that pristine, too?",
        "vmctl stop and start instead of rm: which files does it have?",
        "vmctl --trace - rm -f NAME: in which order is it undone?",
    ),
)
