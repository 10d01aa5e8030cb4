"""The common part of `bench peers` and `bench images`: their flags, and how they measure and write their results."""

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
    """Declare the flags of a measurement that is written as NAME.json and NAME.md; `runs` is the default of --runs."""
    parser.add_argument("--runs", type=int, default=runs, help=f"counted rounds (default: {runs})")
    parser.add_argument("--seed", type=int, help="seed for the random order (default: random, and printed)")
    parser.add_argument("--out", metavar="DIR", help=f"folder to write {name}.json and {name}.md to")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="output format (default: table)")


def take(args: argparse.Namespace, measure: Measure[Done], write: Callable[[Done, str], None]) -> Done:
    """Measure, write the result to the folder of --out if given, and return it."""
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
