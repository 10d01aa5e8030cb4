"""What charts share: a lane per mode with its name and figure above it, a bar of parts, a legend, an axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.formatting import quantity
from bench.report import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HATCHES = ("", "///", "...", "xx", "\\\\\\", "++")
_LOG_BEYOND = 20.0  # if the medians differ by a larger factor, a linear scale would show each mode as one dot
_READABLE = 0.14  # the share of the axis below which a part has no room for its text


def name(axes: Axes, label: str, text: str, height: float) -> None:
    """Write a mode's name and its figure above its lane: to the left they would take the width of a phone."""
    box = {"facecolor": drawing.PAPER, "edgecolor": "none", "pad": 1.0}  # hides the grid behind the figure
    placed: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom", "bbox": box}
    axes.text(0.0, height, label, ha="left", **placed)
    axes.text(1.0, height, text, ha="right", fontsize=13, fontweight="bold", **placed)


def bar(axes: Axes, row: tuple[float, int], parts: Sequence[tuple[float, str]], whole: float) -> None:
    """Draw a bar of parts, each with its text if there is room on an axis of the length `whole`.

    `row` is the height of the bar and the place of its mode; a part is its length and its text. A part of length 0
    keeps its hatch.
    """
    (height, place), left = row, 0.0
    for number, (length, text) in enumerate(parts):
        if length:
            drawn = axes.barh(height, length, 0.5, left=left, color=drawing.colour(place), edgecolor=drawing.PAPER)
            drawn[0].set(linewidth=1, **_looks(number))
        if length > _READABLE * whole:
            box = {"facecolor": drawing.PAPER, "edgecolor": "none", "boxstyle": "round,pad=0.25"}
            axes.text(left + length / 2, height, text, ha="center", va="center", fontsize=11, bbox=box)
        left += length


def _looks(number: int) -> dict[str, Any]:
    return {"alpha": 1 - 0.22 * (number % 4), "hatch": _HATCHES[number % len(_HATCHES)]}


def finish(figure: Figure, axes: Axes, count: int, parts: Sequence[tuple[int, str]]) -> None:
    """Set the limits for so many lanes of bars, and write the legend: the number and the name of each part."""
    from matplotlib.patches import Patch

    axes.set_yticks([])
    axes.set_ylim(count - 0.6, -0.7)
    keys = [Patch(facecolor=drawing.INK, edgecolor=drawing.PAPER, label=text, **_looks(n)) for n, text in parts]
    figure.legend(handles=keys, loc="outside upper left", ncols=2, frameon=False, handlelength=2.4)


def scale(axes: Axes, direction: str, unit: str, *, log: bool) -> None:
    """Set the numbers of the axis x or y: round ones in this unit, see `Figure.unit`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator, NullLocator

    axis = axes.xaxis if direction == "x" else axes.yaxis
    if log:
        axes.set(**{f"{direction}scale": "log"})
        low, high = (axes.get_xlim if direction == "x" else axes.get_ylim)()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 1500 * low else (1.0,), numticks=12))
        axis.set_minor_locator(NullLocator())
    elif unit.startswith("bytes"):  # round in KiB and MiB
        low, high = (axes.get_xlim if direction == "x" else axes.get_ylim)()
        axis.set_major_locator(MultipleLocator(2.0 ** ceil(log2((high - low) / 6))))
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, unit)))


def _tick(value: float, unit: str) -> str:
    """Return a number for an axis, without zeros after the decimal point."""
    return quantity(value, unit).replace(".00 ", " ").replace(".0 ", " ") if value else "0"


def logarithmic(groups: Sequence[Sequence[float]]) -> bool:
    """Return whether these values need a logarithmic scale: all above 0, with medians that are far apart."""
    middles = [median(values) for values in groups if values]
    return all(value > 0 for values in groups for value in values) and max(middles) > _LOG_BEYOND * min(middles)
