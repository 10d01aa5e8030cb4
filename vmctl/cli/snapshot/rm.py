"""vmctl snapshot rm."""

from __future__ import annotations

import argparse

from vmctl.cli import each

EXAMPLE = "vmctl snapshot rm golden"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="SNAPSHOT", nargs="+", help="name of a snapshot")
    parser.add_argument("-f", "--force", action="store_true", help="also one whose record is damaged")


def run(args: argparse.Namespace) -> int:
    """Remove each that no clone uses and print its name, also after a failure."""
    from vmctl.snapshots import record

    return each(args.names, lambda name: record.remove(name, force=args.force))
