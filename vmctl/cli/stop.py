"""vmctl stop."""

from __future__ import annotations

from vmctl import engine
from vmctl.cli import each, output, selection
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec import signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl stop --time 30 web"
TIME = "seconds to wait before SIGKILL (default: 10, or 60 for a guest that boots a system)"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "stop all running instances")
    parser.add_argument(
        "-s",
        "--signal",
        metavar="SIGNAL",
        help="signal to send first (default: the workload's, or the image's, or TERM)",
    )
    parser.add_argument("-t", "--time", "--timeout", type=output.seconds, metavar="SECONDS", help=TIME)


def run(args: Namespace) -> int:
    """Stop each and print its name."""
    number = None if args.signal is None else signals.parse(args.signal)
    return each(selection.running(args, here=True), lambda name: engine.stop(instance.load(name), args.time, number))
