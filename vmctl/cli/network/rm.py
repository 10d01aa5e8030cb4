"""vmctl network rm."""

from __future__ import annotations

import argparse
from contextlib import suppress

from vmctl import networks
from vmctl.cli import each
from vmctl.errors import NotFoundError

EXAMPLE = "vmctl network rm backend"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="network")
    parser.add_argument("-f", "--force", action="store_true", help="no error for a network that does not exist")


def run(args: argparse.Namespace) -> int:
    """Remove each and print its name, also after a failure."""

    def remove(name: str) -> None:
        with suppress(*[NotFoundError] * args.force):
            networks.remove(name)

    return each(args.names, remove)
