"""The pictures of a lab: measured evidence in lanes, bars of memory, curves over instances, the isolation ladder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench.formatting import quantity
from bench.handins import curves, ladder
from bench.handins.record import Measured, Run
from bench.report import drawing, lanes
from vmctl.console import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LANES_MAX, _NAME_MAX = 14, 60
_SPECIAL: Mapping[str, Callable[[Run], Iterator[tuple[str, str]]]] = {
    "isolation-ladder": ladder.of,
    "density": curves.memory,
    "start-slope": curves.starts,
}


class Picture(NamedTuple):
    """An SVG element and the line below it."""

    svg: str
    text: str


def of(run: Run) -> list[Picture]:
    """Return the pictures of a run: those of its lab, and one for each unit of which two things were measured."""
    found = [Picture(svg, text) for svg, text in _SPECIAL.get(run.lab, _nothing)(run)]
    groups: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    for name, value in run.evidence.items():
        if isinstance(value, Measured) and value.values:
            groups.setdefault(value.unit, []).append((visible(name)[:_NAME_MAX], value.values))
    for number, (unit, lines) in enumerate(groups.items()):
        if len(lines) > 1:
            found.append(_of_unit(f"{run.id}-{number}", run, unit, lines[:_LANES_MAX]))
    return found


def _nothing(_: Run) -> Iterator[tuple[str, str]]:
    return iter(())


def _of_unit(name: str, run: Run, unit: str, found: Sequence[tuple[str, tuple[float, ...]]]) -> Picture:
    single = all(len(values) == 1 and values[0] >= 0 for _, values in found)
    if unit == "bytes" and single and any(values[0] for _, values in found):
        return Picture(_bars(name, run, found), "Each bar is one value, on one scale.")
    return Picture(_strips(name, run, unit, found), "Each point is one value; the bar is the median.")


def _bars(name: str, run: Run, found: Sequence[tuple[str, tuple[float, ...]]]) -> str:
    sizes = [values[0] for _, values in found]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xlim(0, max(sizes) * 1.02)
        for height, ((label, _), size) in enumerate(zip(found, sizes, strict=True)):
            axes.barh(height, size, 0.42, color=drawing.colour(height))
            lanes.name(axes, label, quantity(size, "bytes"), height - 0.3)
        axes.set_yticks([])
        axes.set_ylim(len(found) - 0.6, -0.8)
        lanes.scale(axes, "x", "bytes", log=False)

    return drawing.svg(name, f"Memory and disk in lab {run.number}", 0.9 + 0.7 * len(found), draw)


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
