"""vmctl down."""

from __future__ import annotations

import argparse
import os

from vmctl import engine
from vmctl.cli.stop import TIME


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME|SPEC", nargs="+")
    parser.add_argument("-t", "--time", type=float, metavar="SECONDS", help=TIME)


def run(args: argparse.Namespace) -> int:
    """Stop and remove each; one that is not there is no error."""
    for text in args.names:
        name = _name(text)
        if engine.down(name, args.time):
            print(name)
    return 0


def _name(text: str) -> str:
    if text.endswith((".yaml", ".yml")) or os.path.sep in text:
        from vmctl import spec

        return spec.load(text).name
    return text
