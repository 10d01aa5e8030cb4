"""vmctl kill."""

from __future__ import annotations

import argparse
import signal

from vmctl import engine
from vmctl.cli import each, selection
from vmctl.errors import SpecError
from vmctl.instances import instance

EXAMPLE = "vmctl kill --signal HUP web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "send it to all running instances")
    parser.add_argument("-s", "--signal", default="KILL", help="name or number of the signal (default: KILL)")


def run(args: argparse.Namespace) -> int:
    """Send the signal to each and print its name."""
    number = signal_number(args.signal)
    return each(selection.running(args), lambda name: engine.kill(instance.load(name), number))


def signal_number(text: str) -> int:
    """Return the number of a signal given as 15, TERM or SIGTERM. Raises SpecError."""
    try:
        if text.isdigit():
            return signal.Signals(int(text))
        return signal.Signals["SIG" + text.upper().removeprefix("SIG")]
    except (ValueError, KeyError):
        raise SpecError(f"there is no signal {text}", hint="`kill -l` lists them") from None
