"""Lab 29: what makes a system call slower in a container."""

from __future__ import annotations

from bench.labs.lab import (
    HOLDS,
    REFUTED,
    UNDECIDABLE,
    Evidence,
    Lab,
    Place,
    Value,
    Verdict,
    disturbed,
    missing,
    samples,
)
from bench.labs.measuring import values
from vmctl.spec.workload import ContainerOptions

_PLACES = ("host", "container", "container without filter")
_ROUNDS, _MORE = 5, 1.05


def _gather(place: Place) -> Evidence:
    found = dict(place.samples("syscall", ("host", "container"), _ROUNDS))
    bare = ContainerOptions(seccomp="unconfined")
    found[_PLACES[2]] = place.samples("syscall", ("container",), _ROUNDS, container=bare)["container"]
    seen: dict[str, Value] = {f"{where}: getppid": values(found[where], "getppid_s", "s") for where in _PLACES}
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, *(f"{where}: getppid" for where in _PLACES)):
        return unknown
    if noisy := disturbed(seen, *(f"{where}: getppid" for where in _PLACES)):
        return Verdict(UNDECIDABLE, f"other work on this machine has disturbed {', '.join(noisy)}")
    host, container, bare = (min(samples(seen, f"{where}: getppid")) for where in _PLACES)
    more, rest = container / host - 1, bare / host - 1
    word = HOLDS if container >= host * _MORE and rest < more / 2 else REFUTED
    return Verdict(
        word, f"a call takes {more:+.0%} in a container, {rest:+.0%} without its filter, compared with the host"
    )


LAB = Lab(
    number=29,
    name="filter-cost",
    claim="What a system call costs more in a container is its filter (seccomp), not its namespaces.",
    why="A benchmark that reports `containers are 11 % slower` has measured one flag.",
    steps=(
        "run a loop of getppid(2) on the host and in a container",
        "run it in a container with seccomp: unconfined, whose namespaces are the same",
        "compare the fastest of each",
    ),
    rule=f"holds if a call takes {_MORE:g} times the host's, less than half of what is more remaining without filter; "
    "undecidable if a median is far from the fastest",
    modes=("host", "container"),
    gather=_gather,
    decide=_decide,
    next=(
        "a filter with ten lines instead of four hundred: what does a call cost?",
        "perf trace of both: how many calls does a web server make per page?",
        "lab 22: a filter alone, without any namespace",
    ),
    published="opscart/container-isolation-benchmarks: getpid 269 ns on the host, 298 ns (+11 %) in a container",
)
