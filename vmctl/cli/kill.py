"""vmctl kill."""

from __future__ import annotations

import argparse

from vmctl import engine
from vmctl.cli import each, selection
from vmctl.instances import instance
from vmctl.spec import signals

EXAMPLE = "vmctl kill --signal HUP web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "send it to all running instances")
    parser.add_argument("-s", "--signal", default="KILL", help="name or number of the signal (default: KILL)")


def run(args: argparse.Namespace) -> int:
    """Send the signal to each and print its name."""
    number = signals.parse(args.signal)
    return each(selection.running(args), lambda name: engine.kill(instance.load(name), number))
