"""vmctl lab ls."""

from __future__ import annotations

import argparse

from bench import labs
from vmctl.cli import output

EXAMPLE = "vmctl lab ls"
COLUMNS = ("number", "name", "claim")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """List the labs."""
    found = labs.labs()
    if args.quiet:
        for lab in found:
            print(lab.name)
        return 0
    rows = [{"number": lab.number, "name": lab.name, "claim": lab.claim, "modes": list(lab.modes)} for lab in found]
    output.show(rows, COLUMNS, args.format)
    return 0
