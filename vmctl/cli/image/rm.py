"""vmctl image rm."""

from __future__ import annotations

import argparse

from vmctl.cli import each

EXAMPLE = "vmctl image rm web:1"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="name, or the beginning of a digest")
    parser.add_argument("-f", "--force", action="store_true", help="also those that instances use; they go on with it")


def run(args: argparse.Namespace) -> int:
    """Remove each image and print its name, also after a failure to remove another image."""
    from images.store import store

    return each(args.names, lambda name: store.remove(name, force=args.force))
