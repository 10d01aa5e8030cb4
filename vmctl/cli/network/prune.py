"""vmctl network prune."""

from __future__ import annotations

import argparse
import os
import sys

from vmctl import networks
from vmctl.cli import each, output
from vmctl.errors import SpecError

EXAMPLE = "vmctl network prune --force"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-f", "--force", action="store_true", help="do not ask for confirmation")


def run(args: argparse.Namespace) -> int:
    """Remove the networks that no instance is in, and print their names; return 1 if the user declines."""
    names = networks.unused()
    if names and not args.force and not _agreed(names):
        output.note("nothing was removed")
        return 1
    return each(names, networks.remove)


def _agreed(names: list[str]) -> bool:
    """Show what would be removed and return whether the user agrees. Raises SpecError without a terminal."""
    if not (os.isatty(0) and os.isatty(2)):
        raise SpecError("prune has no terminal to ask for confirmation", hint="use --force to remove without asking")
    sys.stderr.write(f"remove the networks {', '.join(names)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
