"""vmctl volume ls."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from vmctl.cli import filters, outliving, output
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from vmctl.volumes.store import NamedVolume

EXAMPLE = "vmctl volume ls --filter label=project=shop"
COLUMNS = ("name", "size_bytes", "age_s", "instances")


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
        "only volumes with this name=PART, label=NAME[=VALUE], or dangling=true|false: without an instance",
    )


def condition(text: str) -> tuple[str, str]:
    """Return key and value of a filter. Raises argparse.ArgumentTypeError."""
    key, equals, value = text.partition("=")
    if not equals or key not in ("name", "label", "dangling") or (key == "dangling" and value not in outliving.TRUTH):
        raise argparse.ArgumentTypeError(f"expected name=PART, label=NAME[=VALUE] or dangling=true, got {text!r}")
    return key, value


def run(args: argparse.Namespace) -> int:
    """List the volumes."""
    outliving.show(list(map(row, chosen(args.filter))), COLUMNS, args)
    return 0


def chosen(conditions: list[tuple[str, str]]) -> Iterator[NamedVolume]:
    """Return the volumes that fulfil all conditions; why one cannot be read is printed to stderr."""
    from vmctl.volumes import store

    found = filters.readable(store.names(), store.find)
    return (one for one in found if all(_fulfils(one, *condition) for condition in conditions))


def _fulfils(volume: NamedVolume, key: str, value: str) -> bool:
    from vmctl.volumes import store

    if key == "name":
        return value in volume.name
    if key == "dangling":
        return outliving.TRUTH[value] != bool(store.users(volume.name))
    return filters.has_label(volume.labels, value)


def row(volume: NamedVolume) -> dict[str, Any]:
    """Return the row of a volume, by column."""
    import time

    from vmctl.linux.filetree import allocated_bytes
    from vmctl.volumes import store

    return {
        "name": volume.name,
        "size_bytes": allocated_bytes(volume.data),
        "age_s": max(0.0, time.time() - volume.created_s),
        "labels": dict(volume.labels),
        "path": volume.data,
        "instances": store.users(volume.name),
    }
