"""vmctl stop."""

from __future__ import annotations

import argparse

from vmctl import engine
from vmctl.cli import each
from vmctl.instances import instance

EXAMPLE = "vmctl stop --time 30 web"
TIME = "seconds to wait before SIGKILL (default: 10, or 60 for a guest that boots a system)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="instance")
    parser.add_argument("-t", "--time", type=float, metavar="SECONDS", help=TIME)


def run(args: argparse.Namespace) -> int:
    """Stop each and print its name."""
    return each(args.names, lambda name: engine.stop(instance.load(name), args.time))
