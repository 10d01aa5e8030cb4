"""vmctl bench self-test."""

from __future__ import annotations

import argparse
import json

from vmctl.cli import output
from vmctl.cli.bench import check_counts, seed

EXAMPLE = "vmctl bench self-test --trials 100"
COLUMNS = ("what", "target", "measured", "met")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--trials", type=int, default=200, help="measurements to make (default: 200)")
    parser.add_argument("--runs", type=int, default=30, help="rounds per measurement (default: 30)")
    parser.add_argument("--seed", type=int, help="seed for the random order (default: random, and printed)")
    parser.add_argument("--out", metavar="FILE", help="file for every raw sample, as JSON")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; return 0 if every target is met, 1 if one is not."""
    from bench import folder, selftest
    from vmctl.linux.filetree import write_atomic

    check_counts(args, "trials", "runs")
    if args.out:
        folder.check_file(args.out)
    progress = output.Progress()
    try:
        done = selftest.measure(args.trials, args.runs, seed(args.seed), progress)
        progress("computing")
        lines, notes = selftest.lines(done), selftest.notes(done)
    finally:
        progress.clear()
    if args.out:
        write_atomic(args.out, json.dumps(done) + "\n")
    words = {True: "yes", False: "no", None: "-"}
    output.show([line._asdict() for line in lines], COLUMNS, args.format, lambda _, value: words.get(value, str(value)))
    output.note("\n" + "\n".join(notes))
    return 0 if all(line.met is not False for line in lines) else 1
