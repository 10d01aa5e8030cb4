"""vmctl snapshot take."""

from __future__ import annotations

import argparse

from vmctl.cli import output, selection
from vmctl.spec.units import format_seconds, format_size

EXAMPLE = "vmctl snapshot db golden"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance; it is paused for a moment, and goes on")
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="name of the new snapshot")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the name")


def run(args: argparse.Namespace) -> int:
    """Take the snapshot, print its name, and to stderr what it has cost and what clones will not have."""
    from vmctl.snapshots import taking

    taken = taking.take(selection.one(args.name), args.snapshot)
    print(taken.name)
    if not args.quiet:
        paused = f", {taken.origin} was paused for {format_seconds(taken.pause_s)}" if taken.pause_s else ""
        output.note(f"{format_size(taken.size_bytes)} in {format_seconds(taken.took_s)}{paused}")
        for text in taken.left_out:
            output.note(f"not in it: {text}")
    return 0
