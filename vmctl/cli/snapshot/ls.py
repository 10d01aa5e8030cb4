"""vmctl snapshot ls."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from vmctl.cli import filters, outliving, output
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from vmctl.snapshots.record import Snapshot

EXAMPLE = "vmctl snapshot ls --filter mode=container"
COLUMNS = ("name", "mode", "origin", "size_bytes", "age_s", "clones")
FILTERS = ("name", "mode", "origin", "label", "dangling")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")
    add_filter(parser)
    output.add_format(parser)


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add --filter."""
    outliving.add_filter(
        parser,
        condition,
        "only snapshots with this name=PART, mode=MODE, origin=INSTANCE, label=NAME[=VALUE] of the workload, or "
        "dangling=true|false: without a clone",
    )


def condition(text: str) -> tuple[str, str]:
    """Return key and value of a filter. Raises argparse.ArgumentTypeError."""
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS or (key == "dangling" and value not in outliving.TRUTH):
        raise argparse.ArgumentTypeError(f"expected {', '.join(FILTERS)} and a value, such as name=gold, got {text!r}")
    return key, value


def run(args: argparse.Namespace) -> int:
    """List the snapshots."""
    outliving.show(list(map(row, chosen(args.filter))), COLUMNS, args)
    return 0


def chosen(conditions: list[tuple[str, str]]) -> Iterator[Snapshot]:
    """Return the snapshots that fulfil all conditions; why one cannot be read is printed to stderr."""
    from vmctl.snapshots import record

    found = filters.readable(record.names(), record.find)  # one that is being taken is not found
    return (one for one in found if all(_fulfils(one, *condition) for condition in conditions))


def _fulfils(found: Snapshot, key: str, value: str) -> bool:
    if key == "name":
        return value in found.name
    if key == "dangling":
        return outliving.TRUTH[value] != bool(found.users())
    if key == "label":
        labels = found.workload.get("labels")  # the rest of a damaged workload does not matter here
        return isinstance(labels, dict) and filters.has_label(labels, value)
    return bool(value == getattr(found, key))


def row(found: Snapshot) -> dict[str, Any]:
    """Return the row of a snapshot, by column."""
    import time

    return {
        "name": found.name,
        "id": found.id,
        "mode": found.mode,
        "origin": found.origin,
        "image": found.workload.get("image"),
        "size_bytes": found.size_bytes,
        "age_s": max(0.0, time.time() - found.created_s),
        "process_state": found.process_state,
        "temporary": found.temporary,
        "clones": found.users(),
    }
