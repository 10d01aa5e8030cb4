"""vmctl rm."""

from __future__ import annotations

import argparse

from vmctl import engine


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("-f", "--force", action="store_true", help="also those that run; they are killed")


def run(args: argparse.Namespace) -> int:
    """Remove each and print its name."""
    for name in args.names:
        engine.rm(name, force=args.force)
        print(name)
    return 0
