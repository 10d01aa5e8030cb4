"""The picture of a lab: its measured evidence, a lane for each name, on one scale for each unit."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from bench.formatting import quantity
from bench.handins.record import Measured, Run
from bench.report import drawing, lanes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LANES_MAX = 14


def of(run: Run) -> list[str]:
    """Return the pictures of a run as SVG elements, one for each unit of which at least two things were measured."""
    groups: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    for name, value in run.evidence.items():
        if isinstance(value, Measured) and value.values:
            groups.setdefault(value.unit, []).append((name, value.values))
    return [
        _strips(f"{run.id}-{number}", run, unit, found[:_LANES_MAX])
        for number, (unit, found) in enumerate(groups.items())
        if len(found) > 1
    ]


def _strips(name: str, run: Run, unit: str, found: Sequence[tuple[str, tuple[float, ...]]]) -> str:
    middles = [median(values) for _, values in found]
    log = lanes.logarithmic([values for _, values in found])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for height, ((label, values), middle) in enumerate(zip(found, middles, strict=True)):
            colour = drawing.colour(height)
            axes.plot(values, [height] * len(values), drawing.marker(height), color=colour, alpha=0.75, clip_on=False)
            axes.plot([middle] * 2, [height - 0.2, height + 0.2], color=drawing.INK, linewidth=2.5, zorder=1.9)
            lanes.name(axes, label, quantity(middle, unit), height - 0.3)
        axes.set_yticks([])
        axes.set_ylim(len(found) - 0.6, -0.8)
        axes.margins(x=0.04)
        lanes.scale(axes, "x", unit, log=log)
        axes.set_xlabel("logarithmic scale" if log else "")

    return drawing.svg(name, f"Measured in lab {run.number}", 0.9 + 0.7 * len(found), draw)
