"""vmctl disable."""

from __future__ import annotations

import argparse

from vmctl.cli import each
from vmctl.instances import instance
from vmctl.keeping import unit

EXAMPLE = "vmctl disable web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")


def run(args: argparse.Namespace) -> int:
    """Remove the unit of each, if it has one, and print its name."""

    def disable(name: str) -> None:
        inst = instance.load(name)
        with inst.locked():
            unit.disable(inst)

    return each(args.names, disable)
