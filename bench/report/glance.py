"""The table on the first screen of the page: the answers to all main questions."""

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

# verdict -> the text below a figure; other verdicts do not show the ratio
_COMPARISONS: dict[str, Callable[[str], str]] = {
    "more": lambda times: f"{times} times",
    "less": lambda times: f"{times} times",
    "invalid": lambda times: "not valid",
}
_NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=(?:[num]s|µs|μs|s|min|h|%|B|[KMGT]iB|times|runs?|points?)\b|%)")


class Cell(NamedTuple):
    """One mode's answer to a question: its figure, and the comparison with the first mode's."""

    value: str
    comparison: str


def cells(result: Result, question: Question) -> list[Cell]:
    """Return a cell per mode, in the order of the plan."""
    found, base = [], ""
    for mode in result.plan.modes:
        one = words.figure(result, question.key, mode)
        if one is None or one.value is None:
            found.append(Cell("", "no answer"))
            continue
        ratio = next((r for r in result.ratios if (r.key, r.mode, r.base) == (question.key, mode, base)), None)
        found.append(Cell(quantity(one.value, one.unit), _comparison(ratio)))
        base = base or mode
    return found


def _comparison(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    if ratio.verdict == "few" and words.separate(ratio):
        return f"{'more' if ratio.delta > 0 else 'less'} in every run"
    text = _COMPARISONS.get(ratio.verdict)
    return text(_times(ratio.ratio)) if text else VERDICTS.get(ratio.verdict, ratio.verdict)


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tight(text: str) -> str:
    """Return the text with non-breaking spaces between numbers and their units."""
    return _NUMBER_AND_UNIT.sub("\u00a0", text)


def coded(text: str) -> Markup:
    """Return the text as HTML, with text in backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # escaped before anything is added


def stacked(text: str) -> str:
    """Return a cell such as "10.5 ms (9.0 ms to 11.1 ms), n=30" as two lines: the figure, and its interval."""
    value, opening, rest = text.partition(" (")
    between, closing, number = rest.rpartition(")")
    if opening and closing and number.startswith(", n="):
        return tight(f"{value}\n{between}{number}")
    return tight(text)
