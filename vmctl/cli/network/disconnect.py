"""vmctl network disconnect."""

from __future__ import annotations

import argparse

from vmctl import joining
from vmctl.cli import selection
from vmctl.instances import instance

EXAMPLE = "vmctl network disconnect backend web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("network", metavar="NETWORK", help="network, also one of the stack of this folder")
    parser.add_argument(
        "name",
        metavar="NAME",
        help="instance, or service of the stack of this folder; of a running container the network that was connected "
        "last",
    )


def run(args: argparse.Namespace) -> int:
    """Disconnect the instance, or each one of a service."""
    network = selection.network(args.network)
    for name in selection.names([args.name]):
        joining.disconnect(instance.load(name), network)
    return 0
