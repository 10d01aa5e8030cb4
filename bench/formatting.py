"""Numbers as text, the same in the terminal's table, in Markdown and on the page."""

from __future__ import annotations

from bench.model import Figure, Ratio
from vmctl.spec.units import format_seconds, format_size

UNKNOWN = "-"


def quantity(value: float | None, unit: str) -> str:
    """Return a value with its unit (see Figure.unit) as text, UNKNOWN for None."""
    if value is None:
        return UNKNOWN
    if unit == "s":
        # 0.2 ms would have one digit, too few to compare
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
    """Return the 95 % interval of a figure, UNKNOWN if it has no interval."""
    if figure.low is None or figure.high is None:
        return UNKNOWN
    return f"{quantity(figure.low, figure.unit)} to {quantity(figure.high, figure.unit)}"


def ratio(one: Ratio) -> str:
    """Return a ratio with its interval: "1.31 (1.28 to 1.35)"; UNKNOWN for one of too few rounds."""
    if one.verdict == "few":
        return UNKNOWN
    if one.low is None or one.high is None:
        return _times(one.ratio)
    return f"{_times(one.ratio)} ({_times(one.low)} to {_times(one.high)})"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
