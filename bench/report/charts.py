"""The charts: every sample of a headline question, the phases of a start, the points of a ladder of instances."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench.formatting import quantity
from bench.model import Result, Sample
from bench.questions import Question
from bench.report import drawing, lanes, tables, words
from bench.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GOLDEN = 0.618034  # its multiples are spread evenly, and always in the same way
_PHASES = (("T0", "T1"), ("T1", "T4"), ("T4", "T5"), ("T5", "T6"))
_PHASE_NAMES = ("until the process exists", "until our init runs", "until the first output", "until the first answer")


class Chart(NamedTuple):
    """A chart, a text on what it shows, and its numbers as a table."""

    name: str
    title: str
    text: str
    svg: str
    table: Table


class Row(NamedTuple):
    """One mode's answers to a question: a number per sample."""

    label: str
    place: int  # of the mode in the plan; determines its colour and marker
    mode: str
    values: list[float]


def of(result: Result, kind: str, question: Question, name: str) -> Chart | None:
    """Return the chart of a question, None if it has no numbers to draw."""
    return _ladder(result, kind, question, name) if question.points else _strip(result, kind, question, name)


def _strip(result: Result, kind: str, question: Question, name: str) -> Chart | None:
    """Return a chart of all samples, a row per mode, with median and interval."""
    rows, many = [], False
    for place, mode in enumerate(result.plan.modes):
        seen = [list(question.values(one)) for one in result.of(kind, mode) if one.counts]
        many = many or any(len(each) > 1 for each in seen)
        rows.append(Row(words.label(result, mode), place, mode, [median(each) for each in seen if each]))
    if not any(row.values for row in rows):
        return None
    log = lanes.logarithmic([row.values for row in rows])
    what = "the median of one run" if many else "one run"
    known = (words.figure(result, question.key, row.mode) for row in rows)
    band = ", the band is its 95 % interval" * any(one is not None and one.low is not None for one in known)
    text = f"Each point is {what}; {_counts(rows)}. The bar is the {question.statistic}{band}."
    text += " The scale is logarithmic: equal distances mean equal factors." if log else ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for height, row in enumerate(rows):
            _row(axes, result, question, row, height)
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.6, -0.7)
        axes.margins(x=0.04)
        lanes.scale(axes, "x", question.unit, log=log)
        if not log:
            axes.set_xlim(left=min(0.0, *(value for row in rows for value in row.values)))
        axes.set_xlabel("logarithmic scale" if log else "")

    title = words.heading(result, question)
    svg = drawing.svg(name, title, 0.9 + 0.95 * len(rows), draw)
    columns = [[quantity(value, question.unit) for value in row.values] for row in rows]
    table = tables.observed("Every counted sample, in order", [row.label for row in rows], columns)
    return Chart(name, title, text, svg, table)


def _row(axes: Axes, result: Result, question: Question, row: Row, height: int) -> None:
    colour, figure = drawing.colour(row.place), words.figure(result, question.key, row.mode)
    heights = [height + 0.36 * ((number * _GOLDEN) % 1 - 0.5) for number in range(len(row.values))]
    if figure is not None and figure.low is not None and figure.high is not None:
        axes.fill_betweenx(
            [height - 0.26, height + 0.26], figure.low, figure.high, color=colour, alpha=0.22, linewidth=0
        )
    points = axes.plot(row.values, heights, drawing.marker(row.place), color=colour, alpha=0.75)[0]
    points.set(gid=f"points-{row.place}", markersize=6.5, mec=drawing.PAPER, mew=0.5, clip_on=False)
    text = "no answer"
    if figure is not None and figure.value is not None:
        # below the points, so that it hides none, and longer than their spread, so that they do not hide it
        axes.plot([figure.value] * 2, [height - 0.31, height + 0.31], color=drawing.INK, linewidth=2.5, zorder=1.9)
        text = quantity(figure.value, figure.unit)
    lanes.name(axes, row.label, text, height - 0.34)


def _ladder(result: Result, kind: str, question: Question, name: str) -> Chart | None:
    """Return a chart of the points for each number of instances, with their slope as a line."""
    found = {
        mode: [list(question.points(one)) for one in result.of(kind, mode) if one.counts] if question.points else []
        for mode in result.plan.modes
    }
    everything = [[height for each in ladders for _, height in each] for ladders in found.values()]
    if not any(everything):
        return None
    log = lanes.logarithmic(everything)
    most = max(count for ladders in found.values() for each in ladders for count, _ in each)
    text = "Each point is one number of instances in one run; the slope of the line is the figure."
    text += " Points of different modes are shifted a little, so that they do not cover each other." * (len(found) > 1)
    keys = [_key(result, question, mode, place) for place, mode in enumerate(found)]
    text += " The vertical scale is logarithmic, so lines are bent." if log else ""

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        for place, (mode, ladders) in enumerate(found.items()):
            aside = 0.012 * most * (place - (len(found) - 1) / 2)
            _line(axes, result, question, (mode, place), [pair for each in ladders for pair in each], aside)
        axes.grid(True, axis="both")
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_xlabel("number of instances")
        if not log:
            low, top = min(0.0, *(height for each in everything for height in each)), axes.get_ylim()[1]
            axes.set_ylim(low - 0.04 * (top - low), top)  # keeps the lowest points off the axis' numbers
        lanes.scale(axes, "y", question.unit, log=log)  # after the limits, which determine the distance of its lines
        _legend(figure, keys)

    columns = [
        [f"{count:g}: {quantity(value, question.unit)}" for each in ladders for count, value in each]
        for ladders in found.values()
    ]
    labels = [words.label(result, mode) for mode in found]
    table = tables.observed("Every point: number of instances and value", labels, columns)
    title = words.heading(result, question)
    return Chart(name, title, text, drawing.svg(name, title, 3.6 + 0.24 * len(found), draw), table)


def _key(result: Result, question: Question, mode: str, place: int) -> tuple[int, str]:
    """Return a mode's place and its text in the legend: its name and its slope."""
    figure, name = words.figure(result, question.key, mode), words.label(result, mode)
    known = figure is not None and figure.value is not None
    return place, f"{name}: {quantity(figure.value, figure.unit)} each" if figure and known else name


def _legend(figure: Figure, keys: Sequence[tuple[int, str]]) -> None:
    from matplotlib.lines import Line2D

    shown = [
        Line2D([], [], color=drawing.colour(n), marker=drawing.marker(n), ls=drawing.dashes(n), ms=7, label=text)
        for n, text in keys
    ]
    figure.legend(handles=shown, loc="outside upper left", frameon=False, handlelength=3.2)


def _line(
    axes: Axes,
    result: Result,
    question: Question,
    mode: tuple[str, int],
    points: Sequence[tuple[float, float]],
    aside: float,
) -> None:
    """Draw a mode's points, shifted by `aside` instances so that they do not cover those of other modes."""
    if not points:
        return
    name, place = mode
    colour, marker = drawing.colour(place), drawing.marker(place)
    counts, values = [count + aside for count, _ in points], [value for _, value in points]
    drawn = axes.plot(counts, values, marker, color=colour, alpha=0.8, markersize=7)[0]
    drawn.set(gid=f"points-{place}", markeredgecolor=drawing.PAPER, markeredgewidth=0.5, clip_on=False)
    figure = words.figure(result, question.key, name)
    if figure is not None and figure.value is not None:
        start = median(value - figure.value * (count + aside) for count, value in points)
        ends = [min(counts) + (max(counts) - min(counts)) * part / 40 for part in range(41)]
        axes.plot(ends, [start + figure.value * count for count in ends], drawing.dashes(place), color=colour, lw=1.8)


def phases(result: Result, kind: str, question: Question, name: str) -> Chart | None:
    """Return the chart of the phases of each mode's median start. It shows one run, so that the phases add up."""
    middle = [(place, mode, _middle(result, kind, mode, question)) for place, mode in enumerate(result.plan.modes)]
    rows = [(place, words.label(result, mode), _spans(one)) for place, mode, one in middle if one is not None]
    if not any(spans for _, _, spans in rows):
        return None
    used = [number for number in range(len(_PHASES)) if any(spans[number] for _, _, spans in rows)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for height, (place, label, spans) in enumerate(rows):
            whole = sum(spans) or 1.0
            lanes.bar(axes, (height, place), [(100 * span / whole, quantity(span, "s")) for span in spans], 100)
            lanes.name(axes, label, quantity(sum(spans), "s"), height - 0.3)
        axes.set_xlim(0, 100)
        axes.set_xticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        lanes.finish(figure, axes, len(rows), [(number, _PHASE_NAMES[number]) for number in used])

    text = (
        "The phases of a start as shares of its total time, which is written above the bar: bars of different modes "
        "have different lengths in seconds. Each bar is one run, the median one."
    )
    cells = tuple(
        (label, *(quantity(spans[number], "s") if spans[number] else "-" for number in used), quantity(sum(spans), "s"))
        for _, label, spans in rows
    )
    table = Table("Phases of the median run", ("mode", *(_PHASE_NAMES[number] for number in used), "total"), cells)
    title = "Where the time goes"
    return Chart(name, title, text, drawing.svg(name, title, 1.6 + 0.8 * len(rows), draw), table)


def _middle(result: Result, kind: str, mode: str, question: Question) -> Sample | None:
    seen = sorted((question.values(one)[0], one.round) for one in result.of(kind, mode) if question.values(one))
    wanted = seen[(len(seen) - 1) // 2][1] if seen else None
    return next((one for one in result.of(kind, mode) if one.round == wanted), None)


def _spans(sample: Sample) -> list[float]:
    """Return the seconds of each phase; 0 if its mark was not observed or is before an earlier one."""
    marks = sorted(
        (sample.marks_ns[name], number) for number, (_, name) in enumerate(_PHASES) if name in sample.marks_ns
    )
    spans, before = [0.0] * len(_PHASES), sample.marks_ns.get("T0", 0)
    for at_ns, number in marks:
        spans[number] = max(0, at_ns - before) / 1e9
        before = max(before, at_ns)
    return spans


def _counts(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.label}: {len(row.values)}" for row in rows)
