"""The tables of a report: figures, ratios, failures, and the numbers of the charts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from bench import cutshort, machine
from bench.formatting import UNKNOWN, interval, quantity, ratio
from bench.model import Figure, Result
from bench.questions import Question
from bench.report import words
from bench.statistics import VERDICTS
from vmctl.spec.units import format_size


class Table(NamedTuple):
    """A table as texts; the first cell of each row is its heading."""

    caption: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figures(result: Result) -> Table:
    """Return every figure, by question and mode, with interval and number of observations."""
    labels = tuple(words.label(result, mode) for mode in result.plan.modes)
    rows = (
        (question.title, *(_answer(result, question, mode) for mode in result.plan.modes))
        for _, question in words.asked(result)
    )
    return Table("Figures: median or slope, 95 % interval, number of observations", ("question", *labels), tuple(rows))


def _answer(result: Result, question: Question, mode: str) -> str:
    """Return a mode's figure, with the reason if it is missing or its ladder was cut short."""
    one, stopped = words.figure(result, question.key, mode), cutshort.remark(result, question, mode)
    if one is not None and one.value is None and stopped:
        return f"{UNKNOWN} ({stopped})"
    return f"{_cell(one)}{f' ({stopped})' * bool(stopped)}"


def _cell(one: Figure | None) -> str:
    if one is None or one.value is None:
        return f"{UNKNOWN} ({one.why.splitlines()[0]})" if one and one.why else UNKNOWN
    text = quantity(one.value, one.unit)
    between = f" ({interval(one)})" if interval(one) != UNKNOWN else ""
    return f"{text}{between}, n={one.observations}{f', {one.failures} failed' * bool(one.failures)}"


def spread(result: Result) -> Table:
    """Return the spread of the observations of each figure."""
    asked = [*(question for _, question in words.asked(result)), machine.question()]
    titles = {question.key: words.heading(result, question) for question in asked}
    rows = (
        (
            titles.get(one.key, one.key),
            words.label(result, one.mode),
            *(quantity(value, one.unit) for value in (one.minimum, one.p5, one.value, one.p95, one.mad)),
            str(one.outliers),
        )
        for one in result.figures
        if one.minimum is not None
    )
    head = ("question", "mode", "minimum", "p5", "median", "p95", "MAD", "outliers")
    return Table("Spread of the observations", head, tuple(rows))


def ratios(result: Result, *, headlines: bool = False) -> Table:
    """Return the ratios between modes with their verdicts, for every question or for the headlines."""
    wanted = {one.key for _, one in (words.headlines if headlines else words.asked)(result)}
    titles = {question.key: words.heading(result, question) for _, question in words.asked(result)}
    rows = (
        (
            titles.get(one.key, one.key),
            f"{words.label(result, one.mode)} / {words.label(result, one.base)}",
            ratio(one),
            f"{one.delta:+.2f}",
            VERDICTS.get(one.verdict, one.verdict),
        )
        for one in result.ratios
        if one.key in wanted
    )
    head = ("question", "modes", "ratio (95 % interval)", "Cliff's delta", "verdict")
    return Table(f"Modes side by side, {'the main questions' if headlines else 'every question'}", head, tuple(rows))


def troubles(result: Result) -> Table:
    """Return the refused modes and the failed samples, with the reasons."""
    refused = [(words.label(result, one.mode), one.kind or "all", "refused", one.reason) for one in result.refusals]
    failed = [
        (words.label(result, one.mode), one.kind, _round(one.round), one.error)
        for one in result.samples
        if one.error is not None
    ]
    return Table("Refused and failed", ("mode", "kind", "round", "reason"), (*refused, *failed))


def _round(number: int) -> str:
    return str(number) if number > 0 else f"warm-up {number}"


def firsts(result: Result) -> Table:
    """Return the very first run of each mode, which may have found empty caches, next to the median."""
    kind, question = _boot(result)
    rows = []
    for mode in result.plan.modes if question else ():
        of_mode = [one for one in result.samples if (one.kind, one.mode) == (kind, mode)]
        first = min(of_mode, key=lambda one: one.round, default=None)
        if question is None or first is None or first.round > 0:
            continue
        seen = question.values(first)
        figure = words.figure(result, question.key, mode)
        text = quantity(seen[0], question.unit) if seen else f"{UNKNOWN} ({first.error or 'not observed'})"
        rows.append((words.label(result, mode), text, quantity(figure.value if figure else None, question.unit)))
    counted = "cold median" if result.plan.cold else "warm median"
    return Table("The very first run, which does not count", ("mode", "first run", counted), tuple(rows))


def _boot(result: Result) -> tuple[str, Question | None]:
    found = ((kind, one) for kind, one in words.headlines(result) if one.metric == "boot")
    return next(found, ("", None))


def host(result: Result) -> Table:
    """Return the facts of the host."""
    rows = [(name.replace("_", " "), text) for name, value in result.host.items() for text in [fact(name, value)]]
    return Table("The host", ("fact", "value"), tuple(rows))


def fact(name: str, value: object) -> str:
    """Return one fact as a line."""
    if value is None or value == "":
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return format_size(value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {fact('', each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(fact("", each) for each in value)
    return str(value)


def plan(result: Result) -> Table:
    """Return the settings of the measurement."""
    one = result.plan
    limit = "the default of its kind" if one.time_limit_s is None else f"{one.time_limit_s:g} s"
    rows = (
        ("measured", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(result.created))),
        ("measurement", result.id),
        ("workload", fact("", one.workload)),
        ("workload digest", one.workload_digest),
        ("modes", ", ".join(one.modes)),
        ("metrics", ", ".join(one.metrics)),
        ("rounds", f"{one.runs}, after {one.warm_ups} discarded"),
        ("page cache", "cold: files of the start evicted before every start" if one.cold else "warm"),
        ("seed of the random order", str(one.seed)),
        ("instances at once", f"at most {one.instances}"),
        ("time limit of a sample", limit),
    )
    return Table("The plan", ("setting", "value"), rows)


def order(result: Result) -> Table:
    """Return the steps in their order, round by round."""
    found: dict[int, list[str]] = {}
    for step in result.plan.steps:
        found.setdefault(step.round, []).append(f"{step.kind} {step.mode}".strip())
    rows = tuple((_round(number), ", ".join(names)) for number, names in found.items())
    return Table("The order of the samples", ("round", "samples"), rows)


def observed(caption: str, titles: Sequence[str], columns: Sequence[Sequence[str]]) -> Table:
    """Return columns of unequal length as a table with numbered rows."""
    longest = max(map(len, columns), default=0)
    rows = (
        (str(number + 1), *(column[number] if number < len(column) else UNKNOWN for column in columns))
        for number in range(longest)
    )
    return Table(caption, ("", *titles), tuple(rows))
