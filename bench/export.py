"""A result in other formats: tidy CSV, Markdown for people, JSON as hyperfine writes it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from statistics import mean, median, stdev
from typing import Any

from bench import machine
from bench.model import Result, Sample
from bench.questions import Question
from bench.report import conclusions, tables, words
from vmctl.errors import SpecError

COLUMNS = ("kind", "mode", "round", "counts", "name", "position", "value", "unit", "error")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a cell that begins so for a formula
# suffix of a value's name -> its unit
_UNITS = {
    "_bytes_per_s": "bytes/s",
    "_per_s": "1/s",
    "_bytes": "bytes",
    "_ns": "ns",
    "_us": "us",
    "_ms": "ms",
    "_s": "s",
    "_share": "share",
}


def samples_csv(result: Result) -> str:
    """Return every observation of every sample, including warm-ups, one per row (RFC 4180).

    A series has one row per number, with its `position`. A failed sample has a row with its error and no value.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for sample in result.samples:
        about = (sample.kind, sample.mode, sample.round, str(sample.counts).lower())
        for name, position, value, unit in _observed(sample):
            writer.writerow((*about, name, position, repr(value), unit, ""))
        if sample.error is not None:
            writer.writerow((*about, "", "", "", "", as_text(sample.error)))
    return file.getvalue()


def _observed(sample: Sample) -> Iterator[tuple[str, str, float, str]]:
    for name, at_ns in sample.marks_ns.items():
        yield as_text(name), "", at_ns, "ns"
    for name, value in sample.values.items():
        yield as_text(name), "", value, unit_of(name)
    for name, numbers in sample.series.items():
        for position, value in enumerate(numbers):
            yield as_text(name), str(position), value, unit_of(name)


def unit_of(name: str) -> str:
    """Return the unit at the end of a value's name, "count" if the name has no unit."""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "count")


def as_text(text: str) -> str:
    """Return a text for a cell, which no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def markdown(result: Result) -> str:
    """Return the figures, the ratios, and the notes needed to read them."""
    lines = [f"# {_inline(words.title(result))}", ""]
    lines += [part for sentence in machine.first(result) for part in (f"**{_inline(sentence)}**", "")]
    lines += [_inline(conclusions.paragraph(result)), ""]
    for table in (tables.figures(result), tables.ratios(result), tables.troubles(result)):
        if table.rows:
            cells = [[_indented(cell) for cell in row] for row in table.rows]
            lines += [f"## {table.caption}", "", *markdown_table(table.titles, cells), ""]
    lines += ["## Notes", "", *(f"- {_inline(note)}" for note in words.notes(result)), ""]
    lines += [f"Host: {_inline(words.host(result))}.", ""]
    return "\n".join(lines)


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; characters that would end a cell or begin a tag are escaped."""
    escaped = [[_cell(text) for text in row] for row in (titles, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], "|" + " --- |" * len(titles), *lines[1:]]


def _cell(text: str) -> str:
    return _inline(text).replace("|", "\\|")


def _inline(text: str) -> str:
    return " ".join(text.splitlines()).replace("<", "&lt;")


def _indented(text: str) -> str:
    return text.replace("  ", "&nbsp;&nbsp;") if text.startswith("  ") else text


def hyperfine(result: Result) -> str:
    """Return the start time of each mode as `hyperfine --export-json` of version 1.15 writes it.

    Processor time, which only hyperfine measures, is null, and so is the stddev of one run, as in hyperfine.
    Raises SpecError if no start was measured.
    """
    found = next((pair for pair in words.headlines(result) if pair[1].metric == "boot"), None)
    entries = [_entry(result, mode, *found) for mode in result.plan.modes] if found else []
    kept = [entry for entry in entries if entry is not None]
    if not kept:
        raise SpecError(
            "this result has no start times, which hyperfine's format needs",
            hint="`vmctl bench SPEC --metrics boot` measures them",
        )
    return json.dumps({"results": kept}, indent=2) + "\n"


def _entry(result: Result, mode: str, kind: str, question: Question) -> dict[str, Any] | None:
    """Return hyperfine's entry for one mode, None if it has no observation."""
    pairs = [
        (number, sample) for sample in result.of(kind, mode) if sample.counts for number in question.values(sample)
    ]
    if not pairs:
        return None
    times = [number for number, _ in pairs]
    return {
        "command": f"vmctl up --mode {mode} {result.plan.workload.get('name', '')}".strip(),
        "mean": mean(times),
        "stddev": stdev(times) if len(times) > 1 else None,
        "median": median(times),
        "user": None,
        "system": None,
        "min": min(times),
        "max": max(times),
        "times": times,
        "exit_codes": [_code(sample) for _, sample in pairs],
    }


def _code(sample: Sample) -> int | None:
    code = sample.values.get("exit_code")
    return None if code is None else int(code)
