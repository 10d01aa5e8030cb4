"""vmctl volume create."""

from __future__ import annotations

import argparse
import os

EXAMPLE = "vmctl volume create --label project=shop data"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="name of the volume (default: random)")
    parser.add_argument(
        "-l",
        "--label",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="label, for `vmctl volume ls --filter`",
    )


def run(args: argparse.Namespace) -> int:
    """Create the volume, unless it exists, and print its name."""
    from vmctl.spec import flags
    from vmctl.volumes import store

    name = os.urandom(8).hex() if args.name is None else args.name
    print(store.create(name, flags.pairs(args.label)).name)
    return 0
