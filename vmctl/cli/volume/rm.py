"""vmctl volume rm."""

from __future__ import annotations

import argparse

from vmctl.cli import each

EXAMPLE = "vmctl volume rm data"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="name of a volume")
    parser.add_argument(
        "-f", "--force", action="store_true", help="also one whose record is damaged; a missing one is not an error"
    )


def run(args: argparse.Namespace) -> int:
    """Remove each and print its name, also after a failure."""
    from vmctl.volumes import store

    return each(args.names, lambda name: store.remove(name, force=args.force))
