"""vmctl volume prune."""

from __future__ import annotations

import argparse

from vmctl.cli import outliving, output
from vmctl.cli.volume import ls
from vmctl.errors import SpecError

EXAMPLE = "vmctl volume prune --all --filter label=project=shop"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-a", "--all", action="store_true", help="remove volumes that have a name; required")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask for confirmation")
    ls.add_filter(parser)
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Remove the volumes that no instance uses, also no stopped one, and print what was removed."""
    from vmctl.volumes import store

    if not args.all:  # as in docker: without it only volumes without a name, and here these end with their instance
        raise SpecError(
            "every volume has a name, and is kept", hint="with --all those are removed that no instance uses"
        )
    store.remove_unfinished()
    rows = [ls.row(volume) for volume in ls.chosen([*args.filter, ("dangling", "true")])]
    return outliving.prune("volume", rows, store.remove, args)
