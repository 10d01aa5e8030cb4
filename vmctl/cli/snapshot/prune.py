"""vmctl snapshot prune."""

from __future__ import annotations

import argparse

from vmctl.cli import outliving, output
from vmctl.cli.snapshot import ls

EXAMPLE = "vmctl snapshot prune --filter origin=db"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-f", "--force", action="store_true", help="do not ask for confirmation")
    ls.add_filter(parser)
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Remove the snapshots that no clone uses, also no stopped one, and print what was removed."""
    from vmctl.snapshots import record

    record.remove_unfinished()
    rows = [ls.row(one) for one in ls.chosen([*args.filter, ("dangling", "true")])]
    return outliving.prune("snapshot", rows, record.remove, args)
