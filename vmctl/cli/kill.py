"""vmctl kill."""

from __future__ import annotations

from vmctl import engine
from vmctl.cli import each, selection
from vmctl.instances import instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec import signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

EXAMPLE = "vmctl kill --signal HUP web"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "send it to all running instances")
    parser.add_argument("-s", "--signal", default="KILL", help="name or number of the signal (default: KILL)")


def run(args: Namespace) -> int:
    """Send the signal to each and print its name."""
    number = signals.parse(args.signal)
    return each(selection.running(args), lambda name: engine.kill(instance.load(name), number))
