"""vmctl image push."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.image import access

EXAMPLE = "vmctl image push web localhost:5000/web:1"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="an image of the store")
    parser.add_argument("target", metavar="REF", nargs="?", default="", help="its name there; default: NAME")
    access.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Send an image and print the digest it has there."""
    from images.transfer import pushing

    progress = output.Progress()
    try:
        digest = pushing.push(args.name, args.target, access.chosen(args), progress)
    finally:
        progress.clear()
    print(digest)
    return 0
