"""Lab 28: three ways to count the memory of instances."""

from __future__ import annotations

from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Samples, Value, Verdict, missing, samples
from bench.labs.lab14_density import COUNTS

_MORE = 1.5


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {}
    for mode, count in COUNTS.items():
        found = place.crowd(mode, count)
        free = found["memory available here"].values
        seen |= {f"{mode}: {name}": found[name] for name in ("RSS", "PSS")}
        seen[f"{mode}: lost by this machine"] = Samples("bytes", (free[0] - free[-1],))
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "container: RSS", "container: PSS"):
        return unknown
    rss, pss = (sum(samples(seen, f"container: {name}")) for name in ("RSS", "PSS"))
    lost = sum(samples(seen, "container: lost by this machine"))
    sizes = (quantity(size, "bytes") for size in (rss, pss, lost))
    reason = "of all containers together: {} by RSS, {} by PSS, {} less available on this machine".format(*sizes)
    return Verdict(HOLDS if rss >= _MORE * pss else REFUTED, f"{reason}; RSS is {rss / max(pss, 1):.1f} times PSS")


LAB = Lab(
    number=28,
    name="summed-memory",
    claim="The sum of RSS overstates what containers take.",
    why="RSS counts a page that is shared by twelve processes twelve times. Many published comparisons add it up.",
    steps=(
        f"start {COUNTS['container']} containers and {COUNTS['vm']} guests of one image (as in lab 14)",
        "add up VmRSS of all their processes, helpers too, and once PSS, which divides shared pages (proc(5))",
        "compare with what MemAvailable of this machine has lost, in which the rest of the machine takes part",
    ),
    rule=f"holds if the sum of RSS of the containers is at least {_MORE:g} times the sum of PSS; else refuted",
    modes=tuple(COUNTS),
    gather=_gather,
    decide=_decide,
    next=(
        "the same for guests: why is the difference smaller?",
        "docker stats, ps aux, top: which of the three do they show?",
        "kernel memory of a container: which of the three contains it?",
    ),
    published="vmctl's own measurement: the sum of RSS was about twelve times what the host lost",
)
