"""vmctl network connect."""

from __future__ import annotations

import argparse

from vmctl import joining
from vmctl.instances import instance

EXAMPLE = "vmctl network connect --alias db backend web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("network", metavar="NETWORK", help="network")
    parser.add_argument("name", metavar="NAME", help="instance; it may run if it is a container")
    parser.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="one more name for the others there"
    )
    parser.add_argument("--ip", metavar="ADDRESS", help="its address there (default: a free one)")


def run(args: argparse.Namespace) -> int:
    """Connect the instance."""
    joining.connect(instance.load(args.name), args.network, args.alias, args.ip)
    return 0
