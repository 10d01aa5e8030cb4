"""Starts of a guest in two ways, in turn: the processor time of each, until the workload has written something.

Other work on the machine makes a start much longer, and adds a little to its processor time: the least of several
starts is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.formatting import quantity
from bench.labs.lab import (
    HOLDS,
    REFUTED,
    UNDECIDABLE,
    Evidence,
    Place,
    Samples,
    Value,
    Verdict,
    disturbed,
    missing,
    samples,
)

ROUNDS = 4
_MORE, _SAME = 1.05, 1.02
RULE = (
    f"holds if the least processor time with it is at least {_MORE:g} times the least without it, refuted if it is at "
    f"most {_SAME:g} times; else, or if a median is far from the least, undecidable"
)

Ways = Mapping[str, Mapping[str, Any]]  # what it is -> keys of the workload; first the way without, then that with it


def gather(place: Place, ways: Ways) -> Evidence:
    """Start a guest in each way in turn; return the processor time and the duration of each start."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, keys in ways.items():
            name = place.start("vm", network="none", **keys)
            spent[way].append(place.spent_s(name))
            took[way] += place.start_s(name).values
            place.vmctl("rm", "-f", name)
    seen: dict[str, Value] = {_spent(way): Samples("s", tuple(values)) for way, values in spent.items()}
    return seen | {f"vm {way}: start": Samples("s", tuple(values)) for way, values in took.items()}


def decide(seen: Evidence, ways: Iterable[str]) -> Verdict:
    """Compare the least processor time of both ways: the one without it, and the one with it."""
    first, last = ways
    if unknown := missing(seen, _spent(first), _spent(last)):
        return unknown
    if noisy := disturbed(seen, _spent(first), _spent(last)):
        return Verdict(UNDECIDABLE, f"other work on this machine has disturbed {', '.join(noisy)}")
    without, with_it = min(samples(seen, _spent(first))), min(samples(seen, _spent(last)))
    reason = f"{quantity(with_it, 's')} of processor time {last}, {quantity(without, 's')} {first}: "
    reason += f"{(with_it - without) / with_it:+.0%} of a start"
    if _SAME < with_it / without < _MORE:
        return Verdict(UNDECIDABLE, f"{reason}, which is less than other work on a machine can add")
    return Verdict(HOLDS if with_it >= _MORE * without else REFUTED, reason)


def _spent(way: str) -> str:
    return f"vm {way}: processor time"
