"""vmctl network create."""

from __future__ import annotations

import argparse

from vmctl import networks
from vmctl.spec import flags

EXAMPLE = "vmctl network create --subnet 10.9.0.0/24 backend"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="name of the new network")
    parser.add_argument("-d", "--driver", choices=("bridge",), default="bridge", help="no effect: there is one kind")
    parser.add_argument("--subnet", metavar="SUBNET", help="addresses, such as 10.9.0.0/24 (default: a free subnet)")
    parser.add_argument("--internal", action="store_true", help="no way out: its instances reach only each other")
    parser.add_argument("--mtu", type=int, metavar="BYTES", help="largest packet (default: 65520)")
    parser.add_argument("--label", action="append", default=[], metavar="NAME[=VALUE]", help="label, for --filter")


def run(args: argparse.Namespace) -> int:
    """Make the network and print its name."""
    networks.create(args.name, args.subnet, internal=args.internal, mtu=args.mtu, labels=flags.pairs(args.label))
    print(args.name)
    return 0
