"""vmctl stop."""

from __future__ import annotations

import argparse

from vmctl import engine, instance

TIME = "before the kill (default: 10, 60 for a guest that boots a system)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("-t", "--time", type=float, metavar="SECONDS", help=TIME)


def run(args: argparse.Namespace) -> int:
    """Stop each and print its name."""
    for inst in [instance.load(name) for name in args.names]:
        engine.stop(inst, args.time)
        print(inst.name)
    return 0
