"""vmctl bench peers."""

from __future__ import annotations

import argparse
import json

from vmctl.cli import output
from vmctl.cli.bench import seed
from vmctl.errors import SpecError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--runs", type=int, default=30, help="counted rounds (default: 30)")
    parser.add_argument("--seed", type=int, help="of the random order (default: made up, and printed)")
    parser.add_argument("--out", metavar="DIR", help="write peers.json and peers.md there")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bench.peers import report

    if args.runs < 1:
        raise SpecError("--runs has to be at least 1")
    progress = output.Progress()
    try:
        done = report.measure(args.runs, seed(args.seed), progress)
    finally:
        progress.clear()
    if args.out:
        report.write(done, args.out)
    if args.format == "json":
        print(json.dumps(report.document(done), indent=1))
        return 0
    for one in done.studies:
        output.note(f"\n{one.title}")
        output.print_table(report.STUDY_COLUMNS, report.study_rows(one))
    output.note("\nclaims")
    output.print_table(report.VERDICT_COLUMNS, report.verdict_rows(done))
    output.note("\n" + "\n".join(report.notes(done)))
    return 0
