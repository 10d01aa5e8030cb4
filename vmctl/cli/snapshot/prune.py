"""vmctl snapshot prune."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.snapshot import ls
from vmctl.errors import VmctlError
from vmctl.spec.units import format_size

EXAMPLE = "vmctl snapshot prune --filter origin=db"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-f", "--force", action="store_true", help="do not ask for confirmation")
    ls.add_filter(parser)
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Remove the snapshots that no clone uses, also no stopped one, and print what was removed."""
    from vmctl.cli import prune
    from vmctl.snapshots import record

    record.remove_unfinished()
    rows = [ls.row(one) for one in ls.chosen([*args.filter, ("dangling", "true")])]
    texts = [f"snapshot {row['name']} ({format_size(row['size_bytes'])})" for row in rows]
    if rows and not args.force and not prune.agreed(texts):
        output.note("nothing was removed")
        return 1
    removed = [row for row in rows if removed_one(row["name"])]
    output.show(removed, ("name", "size_bytes"), args.format, _cell)
    output.note(f"freed {format_size(sum(row['size_bytes'] for row in removed))}")
    return 0


def removed_one(name: str) -> bool:
    """Remove a snapshot and return whether that was possible: a clone may use it by now."""
    from vmctl.snapshots import record

    try:
        record.remove(name)
    except VmctlError as error:
        output.note(f"{error}\nhint: {error.hint}")
        return False
    return True


def _cell(_: str, value: object) -> str:
    return format_size(value) if isinstance(value, int) else str(value)
