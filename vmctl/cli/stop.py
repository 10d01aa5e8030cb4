"""vmctl stop."""

from __future__ import annotations

import argparse

from vmctl import engine, instance


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("-t", "--time", type=float, default=10.0, metavar="SECONDS", help="before the kill (10)")


def run(args: argparse.Namespace) -> int:
    """Stop each and print its name."""
    for inst in [instance.load(name) for name in args.names]:
        engine.stop(inst, args.time)
        print(inst.name)
    return 0
