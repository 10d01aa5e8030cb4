"""Figures of a claim as they are printed: value, unit, and how much rounding has left open."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

from bench.formatting import quantity

_SIZES = {name: 1024 ** (power + 1) for power, name in enumerate(("kib", "mib", "gib", "tib"))}
_SIZES |= {name: 1000 ** (power + 1) for power, name in enumerate(("kb", "mb", "gb", "tb"))}
_TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
UNITS = {**{name: ("s", scale) for name, scale in _TIMES.items()}, "b": ("bytes", 1.0)}
UNITS |= {name: ("bytes", float(scale)) for name, scale in _SIZES.items()}
UNITS |= dict.fromkeys(("requests", "req", "ops", "op", "trans", "calls", "hits"), ("1", 1.0))
_UNIT = "|".join(sorted(UNITS, key=len, reverse=True))
NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:\.\d{1,15})?"
FIGURE = rf"~?{NUMBER}(?:\s?(?:{_UNIT})(?:/s)?|\s?/s)?"
_PARTS = re.compile(rf"(~?)({NUMBER})\s?({_UNIT})?(/s)?")
ABOUT = 0.05  # what `about` and `~` leave open


class Range(NamedTuple):
    """The lowest and the highest value that a figure can have, given how it was rounded."""

    low: float
    high: float

    def meets(self, other: Range) -> bool:
        """Return whether both can be the same value; two ranges that only touch cannot."""
        exact = self.low == self.high or other.low == other.high
        slack = 1e-9 * max(abs(self.high), abs(other.high)) * (1 if exact else -1)
        return self.low <= other.high + slack and other.low <= self.high + slack


class Figure(NamedTuple):
    """A figure: its value in the base unit of its kind, and the range that is printed as this figure."""

    value: float
    kind: str  # `s`, `bytes`, `1`, with `/s` for a rate
    range: Range

    def __str__(self) -> str:
        """Return it as text for people."""
        return worded(self.value, self.kind)


def worded(value: float, kind: str) -> str:
    """Return a value as text. A `kind` that is a rate keeps its `/s`."""
    base, rate, _ = kind.partition("/s")
    text = quantity(value, base)
    return text + rate


def figure(text: str, *, rounded: bool = False, about: bool = False) -> Figure:
    """Return the figure in a text that matches FIGURE, in lower case.

    A whole number without a unit is a count, so it is exact unless it is the result of a computation (`rounded`).
    """
    match = _PARTS.fullmatch(text.strip())
    assert match is not None
    approximate, digits, unit, rate = match.groups()
    base, scale = UNITS[unit] if unit else ("1", 1.0)
    value = float(digits.replace(",", ""))
    exact = unit is None and "." not in digits and not rounded
    half = 0.0 if exact else 0.5 * 10.0 ** -len(digits.partition(".")[2])
    if about or approximate:
        half = max(half, ABOUT * value)
    found = Range((value - half) * scale, (value + half) * scale)
    return Figure(value * scale, base + (rate or ""), found)


def shared_unit(figures: Sequence[str]) -> list[str]:
    """Return the texts, each without a unit with that of the next that has one: `0.82 -> 0.6 s`."""
    found: list[str] = []
    unit = ""
    for text in reversed(figures):
        match = _PARTS.fullmatch(text.strip())
        assert match is not None
        own = (match[3] or "") + (match[4] or "")
        found.append(text.strip() if own else f"{text.strip()} {unit}".strip())
        unit = own or unit
    return found[::-1]


def computed(rule: Callable[..., float], *figures: Figure) -> Range:
    """Return the range of a result that grows or falls with each figure: its values at all ends of the ranges."""
    ends = [rule(*corner) for corner in product(*(one.range for one in figures))]
    return Range(min(ends), max(ends))
