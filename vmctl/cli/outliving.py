"""What outlives instances, volumes and snapshots: how it is listed, filtered and pruned."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from vmctl.cli import output
from vmctl.errors import VmctlError
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_age, format_size

if TYPE_CHECKING:
    from typing import Any

TRUTH = {"true": True, "1": True, "false": False, "0": False}


def add_filter(parser: argparse.ArgumentParser, condition: Callable[[str], tuple[str, str]], text: str) -> None:
    """Add --filter with its help text; it can be repeated, and `condition` returns key and value of each."""
    parser.add_argument("--filter", action="append", default=[], type=condition, metavar="KEY=VALUE", help=text)


def show(rows: list[output.Row], columns: Sequence[str], args: argparse.Namespace) -> None:
    """Print a table of rows, or their names only."""
    if args.quiet:
        for one in rows:
            print(one["name"])
    else:
        output.show(rows, columns, args.format, _cell)


def prune(what: str, rows: list[output.Row], remove: Callable[[str], None], args: argparse.Namespace) -> int:
    """Remove what the rows are of, after confirmation, and print what was removed; one may be used by now."""
    from vmctl.cli import prune

    texts = [f"{what} {row['name']} ({format_size(row['size_bytes'])})" for row in rows]
    if rows and not args.force and not prune.agreed(texts):
        output.note("nothing was removed")
        return 1
    removed = [row for row in rows if removed_one(row["name"], remove)]
    output.show(removed, ("name", "size_bytes"), args.format, _cell)
    output.note(f"freed {format_size(sum(row['size_bytes'] for row in removed))}")
    return 0


def removed_one(name: str, remove: Callable[[str], None]) -> bool:
    """Remove one and return whether that was possible: an instance may use it by now."""
    try:
        remove(name)
    except VmctlError as error:
        output.note(f"{error}\nhint: {error.hint}")
        return False
    return True


def _cell(name: str, value: Any) -> str:
    if name == "size_bytes":
        return format_size(value)
    if name == "age_s":
        return format_age(value)
    return (", ".join(value) or "-") if isinstance(value, list) else str(value)
