"""vmctl timeline."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence

from vmctl.cli import selection
from vmctl.cli.parser import columns
from vmctl.instances import instance
from vmctl.spec.units import format_seconds
from vmctl.timelines import Bar, Recorded, recorded

EXAMPLE = "vmctl timeline web db"
FORMS = ("table", "json", "html")
_TITLE, _TOOK = 14, 8  # columns
_NARROWEST = 10
_IN_A_FILE = 100  # columns


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    selection.add(parser, "draw all instances that were started", text="instance; or stack, by name or file")
    parser.add_argument(
        "--clock", action="store_true", help="draw each where it was on the host's clock (default: all begin together)"
    )
    parser.add_argument(
        "--format", choices=FORMS, default="table", help="table (the default), json, or html (one page)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw the phases of the last start of each, on one scale."""
    found = [instance.load(name) for name in selection.every(args)]
    if args.all:
        found = [inst for inst in found if inst.timeline.marks_ns]
    starts = recorded(found, clock=args.clock)
    if args.format == "json":
        print(json.dumps([start.document() for start in starts], indent=2))
    elif args.format == "html":
        from bench.report import timeline

        print(timeline.page(starts), end="")
    else:
        width = columns() if sys.stdout.isatty() or "COLUMNS" in os.environ else _IN_A_FILE
        for line in drawn(starts, width, *_characters()):
            print(line)
    return 0


def _characters() -> tuple[str, str]:
    """Return what bars are made of: before a start is measured, and after."""
    try:
        "░█".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return "-", "#"
    return "░", "█"


def drawn(starts: Sequence[Recorded], width: int, before: str, after: str) -> Iterator[str]:
    """Yield the lines: a block for each start, a bar for each of its phases, and the scale at the end."""
    bars = [bar for start in starts for bar in start.bars]
    if not bars:
        return
    scale = _Scale(
        min(bar.begin_s for bar in bars),
        max(bar.end_s for bar in bars),
        max(_NARROWEST, width - _TITLE - _TOOK - 3),
    )
    for start in starts:
        yield start.heading()
        for bar in start.bars:
            character = before if bar.preparation else after
            took = format_seconds(bar.took_s)
            yield f"{bar.title:<{_TITLE}} {took:>{_TOOK}}  {scale.bar(bar, character)}"
    yield f"{'':{_TITLE + _TOOK + 3}}{scale.labels()}"


class _Scale:
    """Seconds as columns."""

    def __init__(self, begin_s: float, end_s: float, width: int) -> None:
        self.begin_s, self.end_s, self.width = begin_s, end_s, width

    def column(self, at_s: float) -> int:
        """Return the column of a moment."""
        return min(self.width - 1, int((at_s - self.begin_s) / max(1e-9, self.end_s - self.begin_s) * self.width))

    def bar(self, bar: Bar, character: str) -> str:
        """Return a bar where it belongs; the shortest one has one column."""
        first, end = self.column(bar.begin_s), self.column(bar.end_s)
        return " " * first + character * max(1, end - first)

    def labels(self) -> str:
        """Return the line below the bars: 0, if there is room for it, and the end."""
        zero, end = self.column(0.0), format_seconds(self.end_s)
        room = self.width - len(end)
        return f"{'':{zero}}{'0':<{room - zero}}{end}" if zero + 1 < room else f"{end:>{self.width}}"
