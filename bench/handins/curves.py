"""Curves over the number of instances: the memory that this machine has lost, and how long the next start took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.handins.record import Measured, Run
from bench.report import drawing, lanes
from vmctl.console import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FREE, _START = "memory available here", "start"
_MODES_MAX, _POINTS_MAX = 6, 10_000


def memory(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the density curve and its caption, if the run has measured one."""
    found = {mode: [values[0] - value for value in values] for mode, values in _series(run, _FREE).items()}
    if found:
        text = "What MemAvailable of this machine has lost, by the number of instances. Other work takes part in it."
        yield _curve(f"{run.id}-density", "Memory by the number of instances", "bytes", found, first=0), text


def starts(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the curve of the starts and its caption, if the run has measured one."""
    if found := _series(run, _START):
        text = "How long the start of each next instance took, while the ones before were running."
        yield _curve(f"{run.id}-starts", "Start time by the number of instances", "s", found, first=1), text


def _series(run: Run, wanted: str) -> dict[str, Sequence[float]]:
    """Return the values of each mode in the order in which they were measured, of those that have several."""
    found: dict[str, Sequence[float]] = {}
    for name, value in run.evidence.items():
        mode, _, field = name.partition(": ")
        if field == wanted and isinstance(value, Measured) and len(value.values) > 1:
            found[visible(mode)[:20]] = value.values[:_POINTS_MAX]
    return dict([*found.items()][:_MODES_MAX])


def _curve(name: str, title: str, unit: str, found: Mapping[str, Sequence[float]], first: int) -> str:
    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        axes.grid(axis="y")
        for place, (mode, values) in enumerate(found.items()):
            look = f"{drawing.marker(place)}{drawing.dashes(place)}"
            axes.plot(range(first, first + len(values)), values, look, color=drawing.colour(place), label=mode)
        log = lanes.logarithmic([*found.values()])
        lanes.scale(axes, "y", unit, log=log)
        lanes.scale(axes, "x", "1", log=False)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("instances")
        figure.legend(loc="outside upper left", ncols=3, frameon=False)

    return drawing.svg(name, title, 3.6, draw)
