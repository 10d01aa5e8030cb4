"""vmctl network disconnect."""

from __future__ import annotations

import argparse

from vmctl import joining
from vmctl.instances import instance

EXAMPLE = "vmctl network disconnect backend web"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("network", metavar="NETWORK", help="network")
    parser.add_argument(
        "name", metavar="NAME", help="instance; of a running container the network that was connected last"
    )


def run(args: argparse.Namespace) -> int:
    """Disconnect the instance."""
    joining.disconnect(instance.load(args.name), args.network)
    return 0
