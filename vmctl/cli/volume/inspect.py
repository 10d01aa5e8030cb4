"""vmctl volume inspect."""

from __future__ import annotations

import argparse
import json

EXAMPLE = "vmctl volume inspect data"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="+", help="name of a volume")


def run(args: argparse.Namespace) -> int:
    """Print a JSON array."""
    from vmctl.cli.volume.ls import row
    from vmctl.volumes import store

    print(json.dumps([row(store.find(name)) for name in args.names], indent=2))
    return 0
