"""vmctl rm."""

from __future__ import annotations

import argparse

from vmctl import engine

EXAMPLE = "vmctl rm --force web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")
    parser.add_argument("-f", "--force", action="store_true", help="kill and remove running instances too")


def run(args: argparse.Namespace) -> int:
    """Remove each and print its name."""
    for name in args.names:
        engine.rm(name, force=args.force)
        print(name)
    return 0
