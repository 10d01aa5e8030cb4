"""vmctl bench peers."""

from __future__ import annotations

import argparse
from contextlib import suppress
from functools import partial

from vmctl.cli import output
from vmctl.cli.bench import measured
from vmctl.errors import NotFoundError

EXAMPLE = "vmctl bench peers --runs 30 --out results"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    measured.arguments(parser, "peers", 30)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bench.peers import report

    done = measured.take(args, partial(report.measure, bzimage=_bzimage()), report.write)
    if args.format == "json":
        return measured.show_json(report.document(done))
    for one in done.studies:
        print(one.title)
        output.print_table(report.STUDY_COLUMNS, report.study_rows(one))
        print()
    print("claims")
    output.print_table(report.VERDICT_COLUMNS, report.verdict_rows(done))
    output.note("\n" + "\n".join(report.notes(done)))
    return 0


def _bzimage() -> str | None:
    """Return the path of the kernel of guests, or None if it is not in the store: then no guest starts either."""
    from images.kernels import kernel

    with suppress(NotFoundError):
        return kernel.find(kernel.DEBIAN).vmlinuz
    return None
