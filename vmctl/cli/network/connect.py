"""vmctl network connect."""

from __future__ import annotations

import argparse

from vmctl import joining
from vmctl.cli import selection
from vmctl.errors import SpecError
from vmctl.instances import instance

EXAMPLE = "vmctl network connect --alias db backend web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("network", metavar="NETWORK", help="network, also one of the stack of this folder")
    parser.add_argument(
        "name",
        metavar="NAME",
        help="instance, or service of the stack of this folder; it may run if it is a container",
    )
    parser.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="one more name for the others there"
    )
    parser.add_argument("--ip", metavar="ADDRESS", help="its address there (default: a free one)")


def run(args: argparse.Namespace) -> int:
    """Connect the instance, or each one of a service."""
    network, names = selection.network(args.network), selection.names([args.name])
    if args.ip and len(names) > 1:
        raise SpecError(f"--ip: {args.name} has {len(names)} instances", hint="name one of them")
    for name in names:
        joining.connect(instance.load(name), network, args.alias, args.ip)
    return 0
