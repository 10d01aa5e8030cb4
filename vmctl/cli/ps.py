"""vmctl ps."""

from __future__ import annotations

import argparse
import time

from vmctl import engine, instance
from vmctl.cli import output
from vmctl.errors import NotFoundError
from vmctl.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.units import format_seconds

if TYPE_CHECKING:
    from typing import Any

EXAMPLE = "vmctl ps --all --format json"
COLUMNS = ("name", "mode", "status", "image", "pid", "address", "ports", "created", "ready_s")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-a", "--all", action="store_true", help="list all instances (default: running ones)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")
    output.add_format(parser)


def run(args: argparse.Namespace) -> int:
    """List the instances."""
    rows = [row for row in map(_row, instance.names()) if row and (args.all or row["status"] == "running")]
    if args.quiet:
        for row in rows:
            print(row["name"])
    else:
        output.show(rows, COLUMNS, args.format, _cell)
    return 0


def _row(name: str) -> dict[str, Any] | None:
    try:
        return describe(instance.load(name))
    except NotFoundError:
        return None  # removed since it was listed


def describe(inst: Instance) -> dict[str, Any]:
    """Return the row of an instance, by column."""
    status = engine.status(inst)
    state, line = inst.state, inst.timeline
    return {
        "name": inst.name,
        "mode": state.mode,
        "status": status,
        "image": inst.work.image,
        "pid": state.pid if status == "running" else None,
        "address": state.address,
        "ports": [str(port) for port in inst.work.ports],
        "created": state.created,
        "ready_s": line.between_s("T0", "T6"),
        "exit_code": state.exit_code,
        "exit_source": state.exit_source,
    }


def _cell(name: str, value: Any) -> str:
    if value is None or value == []:
        return "-"
    if name == "created":
        return f"{format_seconds(max(0, time.time() - value))} ago"
    if name == "ready_s":
        return format_seconds(value)
    return ", ".join(value) if isinstance(value, list) else str(value)
