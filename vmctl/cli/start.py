"""vmctl start."""

from __future__ import annotations

import argparse
import time

from vmctl import again
from vmctl.cli import attach, each, output, selection, startshow, up
from vmctl.errors import SpecError
from vmctl.instances import lastrecord

EXAMPLE = "vmctl start web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="instance; or stack, by name or file")
    up.add_wait(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")
    startshow.add(parser)
    parser.add_argument("--cold", action="store_true", help="boot guests that are suspended, without their memory")
    parser.add_argument("-a", "--attach", action="store_true", help="connect with it, as `vmctl attach` does")
    parser.add_argument("-i", "--interactive", action="store_true", help="no effect: -a connects an open stdin")
    parser.set_defaults(no_stdin=False)
    attach.add_connection(parser)
    parser.add_argument(
        "--at-boot",
        action="store_true",
        help="for units: do not wait until it is ready; leave out one with restart: unless-stopped that was stopped",
    )


def run(args: argparse.Namespace) -> int:
    """Start each and print its name; one that runs already is not an error. With -a return the exit code of the one."""
    if args.attach:
        return _attached(args)

    def start(name: str) -> None:
        if args.at_boot and again.stays_stopped(name):
            return
        with startshow.shown(verbose=args.verbose, quiet=args.quiet) as progress:
            inst = again.start(name, wait=args.wait and not args.at_boot, progress=progress, cold=args.cold)
        if inst is not None:
            up.report(inst, quiet=args.quiet)
            return
        print(name)
        if not args.quiet:
            output.note(f"{name} is running already")

    return each(selection.names(args.names), start, echo=False)


def _attached(args: argparse.Namespace) -> int:
    if len(args.names) != 1:
        raise SpecError("-a is for one instance", hint="`vmctl logs --follow` shows the output of many")
    since_ns = time.time_ns()
    inst = selection.one(args.names[0])
    lastrecord.hold(inst)
    inst = again.start(inst.name, wait=False, cold=args.cold) or inst
    return attach.connect(inst, args, since_ns)
