"""vmctl bench images."""

from __future__ import annotations

import argparse
import json

from vmctl.cli import output
from vmctl.cli.bench import seed
from vmctl.errors import SpecError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--runs", type=int, default=3, help="counted rounds (default: 3)")
    parser.add_argument("--seed", type=int, help="of the random order (default: made up)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bench import importing

    if args.runs < 1:
        raise SpecError("--runs has to be at least 1")
    progress = output.Progress()
    try:
        done = importing.measure(args.runs, seed(args.seed), progress)
    finally:
        progress.clear()
    if args.format == "json":
        print(json.dumps(importing.document(done), indent=1))
        return 0
    output.print_table(importing.COLUMNS, importing.rows(done))
    output.note("\n" + "\n".join(importing.notes(done)))
    return 0
