"""What `bench peers` and `bench images` have in common: their flags, and where what they measured goes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from vmctl.cli import output
from vmctl.cli.bench import check_counts, seed
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, TypeVar

    Done = TypeVar("Done")
    Measure = Callable[[int, int, Callable[[str], None]], Done]


def arguments(parser: argparse.ArgumentParser, name: str, runs: int) -> None:
    """Declare the flags of what is written as NAME.json and NAME.md, with so many rounds where nothing is said."""
    parser.add_argument("--runs", type=int, default=runs, help=f"counted rounds (default: {runs})")
    parser.add_argument("--seed", type=int, help="of the random order (default: made up, and printed)")
    parser.add_argument("--out", metavar="DIR", help=f"write {name}.json and {name}.md there")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")


def take(args: argparse.Namespace, measure: Measure[Done], write: Callable[[Done, str], None]) -> Done:
    """Return what is measured, written to the folder of --out where there is one."""
    from bench import folder

    check_counts(args, "runs")
    if args.out:
        folder.make(args.out)
    progress = output.Progress()
    try:
        done = measure(args.runs, seed(args.seed), progress)
    finally:
        progress.clear()
    if args.out:
        write(done, args.out)
    return done


def show_json(document: dict[str, Any]) -> int:
    """Print a document and return the exit code."""
    print(json.dumps(document, indent=1))
    return 0
