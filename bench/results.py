"""What a comparison leaves behind: one file for programs with every raw sample, one for people."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from bench import manifest, table
from bench.comparison import Comparison
from bench.sample import to_json
from vmctl.instance import write_atomic
from vmctl.readiness import PERIOD_S
from vmctl.workload import named

FORMAT = "vmctl bench 1"


def document(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as the content of `result.json`."""
    return {
        "format": FORMAT,
        "workload": named(comparison.work),
        "workload_digest": comparison.work.digest(),
        "modes": comparison.modes,
        "runs": comparison.runs,
        "seed": comparison.seed,
        "order": comparison.order,
        "missing": comparison.missing,
        "probe_period_s": PERIOD_S,
        "host": manifest.facts(),
        "samples": [to_json(sample) for sample in comparison.samples],
    }


def write(comparison: Comparison, folder: str) -> None:
    """Write `result.json` and `report.md` into a folder, which is made where it is missing."""
    os.makedirs(folder, exist_ok=True)
    result = document(comparison)
    write_atomic(os.path.join(folder, "result.json"), json.dumps(result, indent=1) + "\n")
    write_atomic(os.path.join(folder, "report.md"), report(comparison, result["host"]))


def report(comparison: Comparison, host: dict[str, Any]) -> str:
    """Return the table and its notes in Markdown."""
    cells = [(row.label.replace("  ", "&nbsp;&nbsp;"), *row.cells) for row in table.rows(comparison)]
    lines = [
        f"# {comparison.work.name}: {', '.join(comparison.modes)}",
        "",
        *markdown(("", *table.titles(comparison)), cells),
        "",
        *(f"- {note}" for note in table.notes(comparison)),
        f"- Host: {host['cpu']}, {host['cpus']} CPUs, Linux {host['kernel']}, vmctl {host['vmctl']}.",
    ]
    return "\n".join(lines) + "\n"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    escaped = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in (titles, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return [lines[0], "|" + " --- |" * len(titles), *lines[1:]]
