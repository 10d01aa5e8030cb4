"""vmctl restart."""

from __future__ import annotations

import argparse

from vmctl import again
from vmctl.cli import each, output, selection, startshow, up
from vmctl.cli.stop import TIME

EXAMPLE = "vmctl restart --time 30 web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="instance; or stack, by name or file")
    parser.add_argument("-t", "--time", "--timeout", type=output.seconds, metavar="SECONDS", help=TIME)
    up.add_wait(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")
    startshow.add(parser)


def run(args: argparse.Namespace) -> int:
    """Stop and start each and print its name."""

    def restart(name: str) -> None:
        with startshow.shown(verbose=args.verbose, quiet=args.quiet) as progress:
            inst = again.restart(name, args.time, wait=args.wait, progress=progress)
        up.report(inst, quiet=args.quiet)

    return each(selection.names(args.names), restart, echo=False)
