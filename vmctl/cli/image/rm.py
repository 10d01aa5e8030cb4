"""vmctl image rm."""

from __future__ import annotations

import argparse

from vmctl.cli import each

EXAMPLE = "vmctl image rm web:1"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="name of an image, or beginning of its digest")
    parser.add_argument(
        "-f", "--force", action="store_true", help="remove it even if instances use it; they keep running"
    )


def run(args: argparse.Namespace) -> int:
    """Remove each and print its name, also after a failure."""
    from images.store import store

    return each(args.names, lambda name: store.remove(name, force=args.force))
