"""vmctl image push."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.image import access

EXAMPLE = "vmctl image push web localhost:5000/web:1"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="name of the image in the store")
    parser.add_argument("target", metavar="REF", nargs="?", default="", help="name in the registry (default: NAME)")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    access.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Upload an image and print its digest in the registry."""
    from images.transfer import pushing

    progress = output.Progress(quiet=args.quiet)
    try:
        digest = pushing.push(args.name, args.target, access.chosen(args), progress)
    finally:
        progress.clear()
    print(digest)
    return 0
