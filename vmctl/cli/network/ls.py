"""vmctl network ls."""

from __future__ import annotations

import argparse

from vmctl import networks
from vmctl.cli import filters, output
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

EXAMPLE = "vmctl network ls --filter label=project=shop"
COLUMNS = ("name", "subnet", "internal", "mtu", "instances")
FILTERS = ("name", "label")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")
    filters.add(parser, "list only networks with this name (or a part of it) or label; can be repeated")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """List the networks."""
    asked = filters.parse(args.filter, FILTERS)
    found = [seen for seen in networks.survey() if all(_passes(seen, *one) for one in asked)]
    if args.quiet:
        for seen in found:
            print(seen.name)
        return 0
    output.show(list(map(row, found)), COLUMNS, args.format, _cell, ("mtu", "internal"))
    for seen in found:
        if seen.reason and args.format == "table":
            output.note(seen.reason)
    return 0


def _passes(seen: networks.Seen, key: str, value: str) -> bool:
    if key == "name":
        return value in seen.name
    return filters.has_label(seen.record.labels if seen.record else {}, value)


def row(seen: networks.Seen) -> dict[str, Any]:
    """Return the row of a network, by column; its values are None if it cannot be read."""
    record = seen.record
    return {
        "name": seen.name,
        "driver": "bridge",
        "subnet": record.subnet if record else None,
        "gateway": seen.gateway,
        "internal": record.internal if record else None,
        "mtu": record.mtu if record else None,
        "labels": dict(record.labels) if record else {},
        "created": record.created if record else None,
        "instances": [member.name for member in seen.members],
    }


def _cell(name: str, value: Any) -> str:
    if name == "instances":
        return ", ".join(value) or "-"
    return {None: "-", True: "yes", False: "no"}[value] if value is None or isinstance(value, bool) else str(value)
