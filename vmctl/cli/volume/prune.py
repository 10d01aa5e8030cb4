"""vmctl volume prune."""

from __future__ import annotations

import argparse

from vmctl.cli import output
from vmctl.cli.volume import ls
from vmctl.errors import SpecError, VmctlError
from vmctl.spec.units import format_size

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
    if rows and not args.force and not _agreed(rows):
        output.note("nothing was removed")
        return 1
    removed = list(filter(_removed, rows))
    output.show(removed, ("name", "size_bytes"), args.format, _cell)
    output.note(f"freed {format_size(sum(row['size_bytes'] for row in removed))}")
    return 0


def _agreed(rows: list[output.Row]) -> bool:
    from vmctl.cli import prune

    return prune.agreed([f"volume {row['name']} ({format_size(row['size_bytes'])})" for row in rows])


def _removed(row: output.Row) -> bool:
    """Remove a volume and return whether that was possible: an instance may use it by now."""
    from vmctl.volumes import store

    try:
        store.remove(row["name"])
    except VmctlError as error:
        output.note(f"{error}\nhint: {error.hint}")
        return False
    return True


def _cell(_: str, value: object) -> str:
    return format_size(value) if isinstance(value, int) else str(value)
