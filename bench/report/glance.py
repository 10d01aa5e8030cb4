"""The answers to all main questions in one table: what stands on the first screen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from bench.formatting import quantity
from bench.model import Ratio, Result
from bench.questions import Question
from bench.report import words
from bench.statistics import VERDICTS

if TYPE_CHECKING:
    from markupsafe import Markup

# verdict -> what stands below a figure; the others say nothing of how many times it is
_BESIDE: dict[str, Callable[[str], str]] = {
    "more": lambda times: f"{times} times",
    "less": lambda times: f"{times} times",
    "few": lambda times: f"{times} times, too few rounds",
    "invalid": lambda times: "not valid",
}
_NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=(?:[num]s|µs|μs|s|min|h|%|B|[KMGT]iB|times|runs?|points?)\b|%)")


class Cell(NamedTuple):
    """What one mode says to a question: its figure, and how that stands beside the first mode's."""

    value: str
    beside: str


def cells(result: Result, question: Question) -> list[Cell]:
    """Return a cell per mode, in the order of the plan."""
    found, base = [], ""
    for mode in result.plan.modes:
        one = words.figure(result, question.key, mode)
        if one is None or one.value is None:
            found.append(Cell("", "no answer"))
            continue
        ratio = next((r for r in result.ratios if (r.key, r.mode, r.base) == (question.key, mode, base)), None)
        found.append(Cell(quantity(one.value, one.unit), _beside(ratio)))
        base = base or mode
    return found


def _beside(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    say = _BESIDE.get(ratio.verdict)
    return say(_times(ratio.ratio)) if say else VERDICTS.get(ratio.verdict, ratio.verdict)


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tight(text: str) -> str:
    """Return the text with numbers that are not parted from their units at the end of a line."""
    return _NUMBER_AND_UNIT.sub("\u00a0", text)


def coded(text: str) -> Markup:
    """Return the text as HTML, what stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # escaped before anything is added


def stacked(text: str) -> str:
    """Return a cell "10.5 ms (9.0 ms to 11.1 ms), n=30" as two lines: the figure, and how sure it is."""
    value, opening, rest = text.partition(" (")
    between, closing, number = rest.rpartition(")")
    if opening and closing and number.startswith(", n="):
        return tight(f"{value}\n{between}{number}")
    return tight(text)
