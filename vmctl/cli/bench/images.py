"""vmctl bench images."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.bench import measured

EXAMPLE = "vmctl bench images --runs 3 --out results"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    measured.arguments(parser, "images", 3)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bench import importing

    done = measured.take(args, importing.measure, importing.write)
    if args.format == "json":
        return measured.show_json(importing.document(done))
    output.print_table(importing.COLUMNS, importing.rows(done))
    output.note("\n" + "\n".join(importing.notes(done)))
    return 0
