"""Lab 9: what ends with the first process."""

from __future__ import annotations

from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, text

_MODES = ("host", "container", "vm")
_FAMILY = "echo up; sleep 7777 & sleep 7777 & wait"
# a shell with a child is killed: does the child live? The redirection lets the outer shell go on
_ORPHAN = """child=$(sh -c 'sleep 7777 >/dev/null 2>&1 & echo $!; kill -9 $$')
kill -0 $child && echo lives || echo ended
kill -9 $child"""


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    for mode in _MODES:
        name = place.start(mode, _FAMILY)
        seen[f"{mode}: child of another shell that was killed"] = (
            "lives" if "lives" in place.exec(name, _ORPHAN) else "ended"
        )
        seen[f"{mode}: processes on the host before"] = str(len(place.marked(name)))
        place.vmctl("kill", name)
        place.vmctl("wait", name)
        seen[f"{mode}: processes on the host after its first one was killed"] = str(len(place.marked(name)))
    return seen


def _decide(seen: Evidence) -> Verdict:
    before, after = (
        f"container: processes on the host {when}" for when in ("before", "after its first one was killed")
    )
    orphans = [f"{mode}: child of another shell that was killed" for mode in _MODES]
    if unknown := missing(seen, before, after, *orphans):
        return unknown
    reason = f"{text(seen, before)} processes before, {text(seen, after)} after the first one was killed"
    lives = all(text(seen, name) == "lives" for name in orphans)
    word = HOLDS if int(text(seen, before)) >= 3 and text(seen, after) == "0" and lives else REFUTED
    return Verdict(word, f"{reason}; the child of any other killed shell lives on: {'yes' if lives else 'no'}")


LAB = Lab(
    number=9,
    name="first-process",
    claim="A container lives as long as its first process; any other process can die without it.",
    why="A shell script as the first process decides whether the server behind it gets SIGTERM, and what a crash ends.",
    steps=(
        "start a shell with two children in each mode",
        "kill another shell in it that has a child: its child goes on, with a new parent",
        "kill the first process from the host, and look for the environment of the workload in /proc",
    ),
    rule="holds if nothing of the container is left after its first process, but a child of any other shell lives on",
    modes=_MODES,
    gather=_gather,
    decide=_decide,
    next=(
        "kill -9 1 inside of the container: who protects it? (pid_namespaces(7))",
        "vmctl run --init: what is process 1 now?",
        "vmctl stop, for a first process that ignores SIGTERM: what follows, and when?",
    ),
)
