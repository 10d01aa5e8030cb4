"""Why fewer instances ran at the same time than planned: a remark that belongs to every figure of a ladder."""

from __future__ import annotations

from collections.abc import Iterator

from bench.formatting import UNKNOWN
from bench.model import Result, Sample
from bench.questions import Question, of

KIND = "ladder"


def remark(result: Result, question: Question, mode: str) -> str:
    """Return the remark on a slope: that its ladder was cut short, and why; "" if it was not."""
    if question.statistic != "slope" or all(question.key != one.key for kind, one in of(result.plan) if kind == KIND):
        return ""
    found = _stopped(result, mode)
    return "" if found is None else f"stopped {found.texts['stopped']}"


def sentences(result: Result) -> Iterator[str]:
    """Yield a sentence for every mode in which fewer instances than planned ran at the same time."""
    for mode in result.plan.modes:
        found = _stopped(result, mode)
        if found is not None:
            ran = found.values.get("instances")
            count = UNKNOWN if ran is None else f"{ran:g}"
            yield (
                f"{mode}: {count} of {result.plan.instances} instances at the same time; stopped "
                f"{found.texts['stopped']}{', so the cost of one more is unknown' * (ran == 1)}"
            )


def _stopped(result: Result, mode: str) -> Sample | None:
    """Return the first sample that counts and was cut short."""
    return next((one for one in result.of(KIND, mode) if one.counts and "stopped" in one.texts), None)
