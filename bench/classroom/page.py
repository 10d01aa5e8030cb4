"""The page of a class: verdicts, each effect over all machines, and the facts of their hosts."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import labs
from bench.classroom.effects import COLUMNS, LEAST, Class, Effect, Point, shown, title
from bench.export import as_text
from bench.formatting import quantity
from bench.labs.lab import Lab
from bench.report import drawing, html, lanes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LANES_MAX, _PICTURES_MAX = 10, 60
_MARKS = {"kvm": 0, "tcg": 1}  # accelerator -> marker and colour; without a guest the third one


class Part(NamedTuple):
    """One lab of the page."""

    lab: Lab
    pictures: list[str]
    effects: list[Effect]
    tables: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]  # caption, titles, rows
    doubts: list[tuple[str, str]]  # machine and text, which is too long for a column


def page(found: Class) -> str:
    """Return the page, without scripts and without the network."""
    return html.rendered(
        "class.html.j2",
        os.path.dirname(__file__),
        title=f"Why do we differ? {len(found.machines)} hand-ins",
        found=found,
        parts=list(_parts(found)),
        verdicts=list(_verdicts(found)),
        least=LEAST,
        titles=("lab", "holds", "refuted", "who is alone with it"),
    )


def _verdicts(found: Class) -> Iterator[tuple[str, ...]]:
    """Yield for each lab the numbers of its verdicts, and who has the one that most do not have."""
    for lab in labs.labs():
        if lab.name in found.verdicts:
            holds, refuted, _ = found.verdicts[lab.name].values()
            few = min((holds, refuted), key=len)
            alone = ", ".join(few) if few and len(few) * 3 <= len(holds) + len(refuted) else ""
            yield f"{lab.number} {lab.name}", str(len(holds)), str(len(refuted)), alone or "-"


def _parts(found: Class) -> Iterator[Part]:
    drawn = 0
    for lab in labs.labs():
        effects = [one for one in found.effects if one.lab == lab.name]
        if not effects:
            continue
        pictures = []
        for unit in dict.fromkeys(one.unit for one in effects):
            some = [one for one in effects if one.unit == unit][:_LANES_MAX]
            if drawn < _PICTURES_MAX:
                drawn += 1
                pictures.append(_strips(f"class-{lab.number}-{drawn}", lab.number, unit, some))
        doubts = {(point.machine, point.doubts) for one in effects for point in one.points if point.doubts}
        yield Part(lab, pictures, effects, [_table(one) for one in effects], sorted(doubts))


def _table(effect: Effect) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    titles = ("machine", "value", *map(title, COLUMNS))
    rows = [
        (one.machine, _value(one, effect.unit), *(shown(name, one.facts.get(name)) for name in COLUMNS))
        for one in effect.points
    ]
    return f"{effect.name}: {effect.spread}", titles, rows


def _value(point: Point, unit: str) -> str:
    return f"{quantity(point.value, unit)}{' (outlier)' * point.far}, n={point.measured}"


def _strips(name: str, number: int, unit: str, effects: Sequence[Effect]) -> str:
    values = [[point.value for point in one.points] for one in effects]
    log = lanes.logarithmic([[value for some in values for value in some]]) or lanes.logarithmic(values)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for height, one in enumerate(effects):
            for place, point in enumerate(one.points):
                row = height + 0.06 * (place % 5 - 2)  # equal values do not hide one another
                look = _MARKS.get(str(point.facts.get("accelerator")), 2)
                style: dict[str, Any] = {
                    "color": drawing.colour(look),
                    "alpha": 0.75,
                    "clip_on": False,
                    "linestyle": "none",
                }
                axes.plot([point.value], [row], drawing.marker(look), **style)
                if point.far:
                    ring: dict[str, Any] = {"markersize": 15, "markerfacecolor": "none", "markeredgecolor": drawing.INK}
                    axes.plot([point.value], [row], "o", clip_on=False, **ring)
            axes.plot([one.middle] * 2, [height - 0.2, height + 0.2], color=drawing.INK, linewidth=2.5, zorder=1.9)
            lanes.name(axes, one.name, quantity(one.middle, unit), height - 0.3)
        axes.set_yticks([])
        axes.set_ylim(len(effects) - 0.6, -0.8)
        axes.margins(x=0.04)
        lanes.scale(axes, "x", unit, log=log)
        axes.set_xlabel("logarithmic scale" if log else "")

    return drawing.svg(name, f"Lab {number} on the machines of the class", 0.9 + 0.75 * len(effects), draw)


def table(found: Class) -> str:
    """Return a CSV with a row for each machine of each effect (RFC 4180)."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("lab", "evidence", "unit", "machine", "run", "value", "values", "outlier", *COLUMNS, "doubts"))
    for effect in found.effects:
        for one in effect.points:
            texts = (effect.lab, effect.name, effect.unit, one.machine, one.run)
            facts = (one.facts.get(name, "") for name in COLUMNS)
            cells = [as_text(cell) if isinstance(cell, str) else repr(cell) for cell in facts]
            far = str(one.far).lower()
            writer.writerow((*map(as_text, texts), repr(one.value), one.measured, far, *cells, as_text(one.doubts)))
    return file.getvalue()
