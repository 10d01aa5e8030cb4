"""vmctl bench history."""

from __future__ import annotations

import argparse
import os
import time

from vmctl.cli import output
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.history import Entry

EXAMPLE = "vmctl bench history web.yaml"
COLUMNS = ("when", "what", "mode", "value", "change", "verdict", "host", "accelerator")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC|NAME", nargs="?", help="show only this workload")
    parser.add_argument("folders", metavar="FOLDER", nargs="*", help="also look for results in FOLDER and FOLDER/*")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Print the headline figures of all results, oldest first, and each change from the one before."""
    from bench import history

    name, folders = _meant(args.spec, args.folders)
    found = history.find(folders)
    entries = history.entries(found.results, name)
    for damaged in found.damaged:
        output.note(f"left out: {damaged}")
    if args.format != "table":
        output.show([entry._asdict() for entry in entries], (), args.format)
    elif entries:
        output.print_table(COLUMNS, list(map(_row, entries)))
    else:
        of = f" of {name}" if name else ""
        output.note(f"no result{of} in {', '.join((history.root(), *folders))}")
        if others := sorted({history.named(one) for _, one in found.results}):
            output.note(f"results exist of {', '.join(others)}")
    return 0


def _meant(first: str | None, folders: list[str]) -> tuple[str, list[str]]:
    """Return the name of a workload, "" for all, and the folders. The first word may be a name, a file or a folder."""
    if first is None:
        return "", folders
    if os.path.isdir(first):
        return "", [first, *folders]
    if os.path.isfile(first):
        from vmctl.spec import workloadfile

        return workloadfile.load(first).name, folders
    return first, folders


def _row(entry: Entry) -> tuple[str, ...]:
    from bench import formatting
    from bench.statistics import VERDICTS

    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created))
    value = formatting.quantity(entry.value, entry.unit)
    change = "-" if entry.change is None else f"{entry.change:.3g}"
    if entry.low is not None and entry.high is not None:
        change += f" ({entry.low:.3g} to {entry.high:.3g})"
    verdict = VERDICTS.get(entry.verdict, "-")
    host = (entry.host or "-").removeprefix("sha256:")[:8]
    return (
        when,
        f"{entry.workload}: {entry.title}",
        entry.mode,
        value,
        change,
        verdict,
        host,
        entry.accelerator or "-",
    )
