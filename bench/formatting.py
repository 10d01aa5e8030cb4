"""Numbers as people read them, the same in the terminal's table, in Markdown and on the page."""

from __future__ import annotations

from bench.model import Figure, Ratio
from vmctl.units import format_seconds, format_size

UNKNOWN = "-"


def quantity(value: float | None, unit: str) -> str:
    """Return a value of a unit (see Figure.unit) for people, UNKNOWN for none."""
    if value is None:
        return UNKNOWN
    if unit == "s":
        # what a table compares needs more than the one digit of 0.2 ms
        return f"{value * 1e6:.3g} µs" if 1e-4 <= abs(value) < 9.995e-4 else format_seconds(value)
    if unit == "bytes":
        return format_size(round(value))
    if unit == "bytes/s":
        return f"{format_size(round(value))}/s"
    if unit == "share":
        return f"{value:.1%}"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return number + "/s" * (unit == "1/s")


def interval(figure: Figure) -> str:
    """Return the 95 % interval of a figure, UNKNOWN where there is none."""
    if figure.low is None or figure.high is None:
        return UNKNOWN
    return f"{quantity(figure.low, figure.unit)} to {quantity(figure.high, figure.unit)}"


def ratio(one: Ratio) -> str:
    """Return a ratio with its interval: "1.31 (1.28 to 1.35)"."""
    if one.low is None or one.high is None:
        return _times(one.ratio)
    return f"{_times(one.ratio)} ({_times(one.low)} to {_times(one.high)})"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
