"""The claims about our cost, and whether a measurement confirms them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.peers import containers as names
from bench.peers.study import Study
from bench.statistics import Interval, ratio, ratio_interval
from vmctl.spec.units import format_seconds, format_size


class Verdict(NamedTuple):
    """A claim, the measured figure, and whether the target is met; None if it could not be measured."""

    claim: str
    target: str
    measured: str
    met: bool | None


def ratio_verdict(claim: str, study: Study, ours: str, peer: str, at_most: float) -> Verdict:
    """Judge the ratio of two medians."""
    pairs = study.pairs(ours, peer)
    target = f"<= {at_most:g} of {peer}"
    if not pairs:
        return Verdict(claim, target, _why(study, ours, peer), None)
    found = ratio(pairs)
    return Verdict(claim, target, f"{found:.2f}{_interval(ratio_interval(pairs))}", found <= at_most)


def difference_verdict(claim: str, study: Study, ours: str, peer: str, at_most_s: float) -> Verdict:
    """Judge the difference of two medians."""
    first, second = study.median_s(ours), study.median_s(peer)
    target = f"<= {format_seconds(at_most_s)} above {peer}"
    if first is None or second is None:
        return Verdict(claim, target, _why(study, ours, peer), None)
    return Verdict(claim, target, format_seconds(first - second), first - second <= at_most_s)


def size_verdict(claim: str, size_bytes: int | None, at_most_bytes: int) -> Verdict:
    """Judge a size."""
    target = f"<= {format_size(at_most_bytes)}"
    if size_bytes is None:
        return Verdict(claim, target, "could not be read", None)
    return Verdict(claim, target, format_size(size_bytes), size_bytes <= at_most_bytes)


def start_verdicts(study: Study) -> Sequence[Verdict]:
    """Judge the start of a container through the library, attached and detached."""
    return [
        ratio_verdict(f"first byte, {ours}", study, ours, peer, at_most)
        for ours in (names.OURS_ATTACHED, names.OURS_DETACHED)
        for peer, at_most in ((names.RUNC, 0.25), (names.FLOOR, 3.0), (names.SAME_CALLS, 3.0))
    ]


def _why(study: Study, *contenders: str) -> str:
    reasons = (study.failures.get(name) for name in contenders)
    return "; ".join(filter(None, reasons)) or "not measured"


def _interval(interval: Interval | None) -> str:
    return f" ({interval.low:.2f} to {interval.high:.2f})" if interval else ""
