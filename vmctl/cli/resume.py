"""vmctl resume."""

from __future__ import annotations

import time

from vmctl import suspending
from vmctl.cli import each, output, selection, startshow, up
from vmctl.ends import SUSPENDED
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_seconds

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl resume web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "resume all suspended instances")
    up.add_wait(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")
    startshow.add(parser)


def run(args: Namespace) -> int:
    """Let each go on and print its name; the time goes to stderr."""

    def resume(name: str) -> None:
        inst, begun_s = instance.load(name), time.monotonic()
        with startshow.shown(verbose=args.verbose, quiet=args.quiet) as progress:
            suspending.resume(inst, wait=args.wait, progress=progress)
        if not args.quiet:
            output.note(f"{name} goes on after {format_seconds(time.monotonic() - begun_s)}")

    return each(selection.with_status(args, SUSPENDED), resume)
