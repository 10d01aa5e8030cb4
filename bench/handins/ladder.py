"""The picture of lab 22: each piece of isolation as a rung, with what it hides, forbids and costs."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.formatting import quantity
from bench.handins.record import Measured, Run
from bench.report import drawing, lanes
from vmctl.console import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COST, _HIDES, _FORBIDS = "to switch on", "other namespaces", "refused"
_RUNGS_MAX, _TEXT_MAX = 16, 66


def of(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the ladder as SVG and its caption, if the run has measured it."""
    found = [*_rungs(run)][:_RUNGS_MAX]
    if len(found) < 2:
        return

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        low = min(cost for _, cost, _ in found)
        axes.set_xscale("log")
        axes.set_xlim(low / 2, max(cost for _, cost, _ in found) * 1.1)
        for height, (name, cost, does) in enumerate(found):
            axes.barh(height, cost - low / 2, 0.26, left=low / 2, color=drawing.colour(0 if " " in name else 1))
            lanes.name(axes, name, quantity(cost, "s"), height - 0.22)
            placed: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "top", "fontsize": 11}
            axes.text(0.0, height + 0.16, does, ha="left", **placed)
        axes.set_yticks([])
        axes.set_ylim(len(found) - 0.4, -0.8)
        lanes.scale(axes, "x", "s", log=True)
        axes.set_xlabel("to switch it on, logarithmic scale")

    title = "The pieces of isolation"
    text = "Each rung is one piece alone: what it takes to switch it on, which namespaces are others, what is refused."
    yield drawing.svg(f"{run.id}-ladder", title, 1.0 + 0.85 * len(found), draw), text


def _rungs(run: Run) -> Iterator[tuple[str, float, str]]:
    """Yield name, seconds, and what it does of each piece, in the order of the evidence: another kernel is last."""
    for name, value in run.evidence.items():
        piece, _, field = name.rpartition(": ")
        if field == _COST and isinstance(value, Measured) and value.values and median(value.values) > 0:
            yield visible(piece)[:_TEXT_MAX], median(value.values), _does(run, piece)


def _does(run: Run, piece: str) -> str:
    texts = {field: run.evidence.get(f"{piece}: {field}") for field in (_HIDES, _FORBIDS, "boot_id")}
    hides, forbids, boot = (value if isinstance(value, str) else "" for value in texts.values())
    found = [f"others: {hides}"] * (hides not in ("", "none")) + [f"refuses: {forbids}"] * (
        forbids not in ("", "nothing")
    )
    if boot:
        found.append("this machine's kernel" if boot == run.boot else "another kernel")
    return visible("; ".join(found) or "nothing changes")[:_TEXT_MAX]
