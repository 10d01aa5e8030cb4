"""vmctl stats."""

from __future__ import annotations

import sys
import time

from vmctl import stats, survey
from vmctl.cli import output, selection
from vmctl.instances import instance
from vmctl.instances.folder import absent
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator
    from typing import Any

    from vmctl.stats import Usage
    from vmctl.survey import Seen

EXAMPLE = "vmctl stats --no-stream"
COLUMNS = (
    *("name", "mode", "cpu_percent", "memory_bytes", "memory_limit_bytes", "memory_percent"),
    *("received_bytes", "sent_bytes", "read_bytes", "written_bytes", "pids"),
)
LESS = ("mode", "pids", "written_bytes", "read_bytes", "sent_bytes", "received_bytes", "memory_limit_bytes")
PERIOD_S = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="instance (default: all that run)")
    parser.add_argument("-a", "--all", action="store_true", help="no effect: only running instances use anything")
    parser.add_argument("--no-stream", action="store_true", help="print one table and return")
    parser.add_argument("--no-trunc", action="store_true", help="no effect: nothing is shortened")
    output.add_format(parser)


def run(args: Namespace) -> int:
    """Print what instances use: once, or again every second until Ctrl-C."""
    args.names = selection.names(args.names) if args.names else []
    sampler = stats.Sampler()
    found = sampler.begin(chosen(args.names))
    while True:
        rows = sampler.look(found, stats.PATIENT_S if args.names else stats.ANSWER_S)
        show(rows, args.format, live=not args.no_stream)
        if args.no_stream:
            return 0
        time.sleep(PERIOD_S)
        found = [seen for name in args.names or instance.names() if (seen := survey.look(name))]


def chosen(names: list[str]) -> Iterator[Seen]:
    """Yield the given instances, or all. Raises NotFoundError."""
    for name in names or instance.names():
        seen = survey.look(name)
        if seen is not None:
            if names and seen.status in survey.ENDED:
                output.note(f"{name} is not running")
            yield seen
        elif names:
            raise absent(name)


def show(rows: list[Usage], form: str, *, live: bool) -> None:
    """Print rows; a live table on a terminal takes the place of the one before."""
    if live and form == "table" and sys.stdout.isatty():
        sys.stdout.write(_HOME_AND_CLEAR)
    texts = [row._asdict() for row in rows]
    if form not in output.FORMS:
        texts = [{**row, **_pairs(row)} for row in texts]
    output.show(texts, COLUMNS, "jsonl" if live and form == "json" else form, cell, LESS)
    sys.stdout.flush()


def _pairs(row: dict[str, Any]) -> dict[str, str]:
    """Return the fields of docker that are two numbers."""
    return {
        "net_io": f"{cell('_bytes', row['received_bytes'])} / {cell('_bytes', row['sent_bytes'])}",
        "block_io": f"{cell('_bytes', row['read_bytes'])} / {cell('_bytes', row['written_bytes'])}",
    }


def cell(name: str, value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "-"
    if name.endswith("_percent"):
        return f"{value:.1f}%"
    return format_size(value) if name.endswith("_bytes") else str(value)
