"""The report of a record: one self-contained page, Markdown, or a notebook with the record in it.

Every text and number is of the record, and what its check finds is in the report too.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, NamedTuple

import msgspec

from bench import labs
from bench.export import markdown_table
from bench.handins import check, grades, pictures
from bench.handins import record as records
from bench.handins.record import Record, Run
from bench.labs.lab import Lab
from bench.report import glossary, html
from vmctl.console import visible
from vmctl.errors import NotFoundError
from vmctl.records import FORMAT
from vmctl.spec.units import format_seconds, format_size

TITLES = ("run", "lab", "predicted", "verdict", "reason")


class Part(NamedTuple):
    """One lab of the report."""

    run: Run
    lab: Lab | None  # None for one that this vmctl does not have
    evidence: list[tuple[str, str]]
    pictures: list[pictures.Picture]

    @property
    def claim(self) -> str:
        """The claim, or the name of a lab that this vmctl does not have."""
        return self.lab.claim if self.lab else self.run.lab


def page(record: Record) -> str:
    """Return the page, without scripts and without the network."""
    return html.rendered(
        "report.html.j2",
        os.path.dirname(__file__),
        title=f"Labs of {record.student or 'this machine'}",
        record=record,
        parts=parts(record, drawn=True),
        rows=[_row(run)[:-1] for run in record.latest().values()],  # the reason is in the section of the lab
        titles=TITLES[:-1],
        facts=facts(record),
        score=predictions(record),
        findings=[_sentence(one) for one in check.check(record)],
        terms=glossary.TERMS,
    )


def parts(record: Record, *, drawn: bool) -> list[Part]:
    """Return the labs of a record by their numbers, the last run of each; with their pictures if `drawn`."""
    return [
        Part(
            run,
            _lab(run.lab),
            [(visible(name), visible(str(value))) for name, value in records.evidence(run).items()],
            pictures.of(run) if drawn else [],
        )
        for run in record.latest().values()
    ]


def _lab(name: str) -> Lab | None:
    try:
        return labs.find(name)
    except NotFoundError:
        return None


def _row(run: Run) -> tuple[str, ...]:
    cells = (run.id, run.lab, run.predicted or "-", run.verdict, run.reason)
    return tuple(map(visible, cells))


def _sentence(finding: check.Finding) -> str:
    return visible(f"{finding.level}: {grades.sentence(finding)}")


def facts(record: Record) -> list[tuple[str, str]]:
    """Return who has run the labs, when and where."""
    begun = [run.begun for run in record.runs]
    when = [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one)) for one in (min(begun), max(begun))] if begun else []
    found = [
        ("student", record.student or "-"),
        ("seed", record.seed or "-"),
        ("record", record.id),
        ("begun", " to ".join(dict.fromkeys(when)) or "-"),
        ("took", format_seconds(sum(run.took_s for run in record.runs))),
        ("accelerator of guests", ", ".join(sorted({run.accelerator for run in record.runs} - {""})) or "-"),
        ("highest load", f"{max(one for run in record.runs for one in run.load):.1f}" if record.runs else "-"),
    ]
    for host in record.hosts.values():
        memory = host.get("memory_bytes")
        size = format_size(int(memory)) if isinstance(memory, int | float) else "?"
        found.append(("host", f"{host.get('cpu')}, {host.get('cpus')} CPUs, {size}, Linux {host.get('kernel')}"))
    return [(name, visible(text)) for name, text in found]


def predictions(record: Record) -> str:
    """Return how many predictions came true, "" without any."""
    predicted = [run for run in record.latest().values() if run.predicted]
    right = sum(run.predicted == run.verdict for run in predicted)
    return f"{right} of {len(predicted)} predictions came true" if predicted else ""


def markdown(record: Record) -> str:
    """Return the report as Markdown."""
    lines = [f"# Labs of {visible(record.student) or 'this machine'}", ""]
    lines += [*markdown_table(("", ""), facts(record)), ""]
    lines += [f"{score}.", ""] if (score := predictions(record)) else []
    lines += [*markdown_table(TITLES, [_row(run) for run in record.latest().values()]), ""]
    for part in parts(record, drawn=False):
        lines += [f"## {part.run.id}: lab {part.run.number}", "", *markdown_table(("claim",), [(part.claim,)]), ""]
        if part.evidence:
            lines += [*markdown_table(("evidence", "value"), part.evidence), ""]
    found = check.check(record)
    lines += ["## Check", "", *(f"- {_sentence(one)}" for one in found)]
    return "\n".join([*lines, "" if found else "Every verdict was confirmed by its evidence.", ""])


def notebook(record: Record) -> str:
    """Return a notebook (nbformat 4) with the record in its metadata, which `lab check` reads, and a first cell."""
    plain = {"format": FORMAT, **msgspec.to_builtins(record)}
    load = (
        "import json\n"
        f"record = json.loads({json.dumps(json.dumps(plain))})\n"
        "runs = {run['id']: run for run in record['runs']}\n"
        "runs"
    )
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "metadata": {}, "source": markdown(record)},
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": load},
    ]
    return json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {"vmctl": plain}, "cells": cells}, indent=1)
