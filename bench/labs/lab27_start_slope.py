"""Lab 27: whether a start takes longer the more instances run."""

from __future__ import annotations

from statistics import median

from bench import statistics
from bench.formatting import quantity
from bench.labs.lab import HOLDS, REFUTED, Evidence, Lab, Place, Value, Verdict, missing, samples
from bench.labs.lab14_density import COUNTS

_RISE, _TAU = 0.1, 0.5


def _gather(place: Place) -> Evidence:
    seen: dict[str, Value] = {f"{mode}: start": place.crowd(mode, count)["start"] for mode, count in COUNTS.items()}
    return seen


def _decide(seen: Evidence) -> Verdict:
    if unknown := missing(seen, "container: start"):
        return unknown
    starts = samples(seen, "container: start")
    points = [list(enumerate(starts, 1))]
    slope = statistics.slope(points) or 0.0
    tau = statistics.tau(points)
    grows = slope * len(starts) >= _RISE * median(starts) and tau >= _TAU
    reason = f"each container more adds {quantity(slope, 's')} to a start of {quantity(median(starts), 's')}"
    return Verdict(HOLDS if grows else REFUTED, f"{reason}; Kendall's tau {tau:.2f}, over {len(starts)} containers")


LAB = Lab(
    number=27,
    name="start-slope",
    claim="The more instances run, the longer the start of the next one takes.",
    why="If a start searches what the others have, a host slows down long before its memory is full.",
    steps=(
        f"start {COUNTS['container']} containers and {COUNTS['vm']} guests, one after the other (as in lab 14)",
        "take the time of each start until its first output",
        "fit a line through the containers' times by their number: the median of all slopes (Theil and Sen)",
    ),
    rule=f"holds if the line rises by {_RISE:.0%} of a start over all containers and Kendall's tau is {_TAU:g} or more",
    modes=tuple(COUNTS),
    gather=_gather,
    decide=_decide,
    next=(
        "make crowd COUNT=300, in a clone of vmctl: the last start against the first",
        "strace -c of the last start: which call takes longer?",
        "the same with instances that work, not wait",
    ),
    published="LightVM (SOSP 2017): 2.3 ms for a guest without work, for any number; Xen's own tools: linear",
)
