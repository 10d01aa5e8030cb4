"""vmctl bench clones."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.bench import measured

EXAMPLE = "vmctl bench clones --modes container --runs 10 --out results"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    measured.arguments(parser, "clones", 5)
    parser.add_argument("--modes", default="container,vm", help="modes to measure (default: container,vm)")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bench import clones
    from vmctl.cli.bench import items

    modes = items("--modes", args.modes)
    done = measured.take(args, lambda runs, seed, progress: clones.measure(runs, seed, progress, modes), clones.write)
    if args.format == "json":
        return measured.show_json(dict(clones.document(done)))
    output.print_table(clones.COLUMNS, clones.rows(done))
    output.note("\n" + "\n".join(clones.notes(done)))
    return 0 if done.samples else 125
