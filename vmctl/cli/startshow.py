"""What a start shows while it happens, on stderr: a line for each phase that has ended, and for what it does now."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import console, phases
from vmctl.cli import output
from vmctl.engine import ATTENDED
from vmctl.instances.instance import Instance
from vmctl.logs.logfile import last_bytes
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_seconds

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from vmctl.engine import Progress

_PERIOD_S = 0.1  # between two changes of the line on a terminal
_TITLE, _TOOK = 16, 9  # columns
_LAST_BYTES = 1024  # of a console


def add(parser: ArgumentParser) -> None:
    """Add --verbose."""
    parser.add_argument(
        "--verbose", action="store_true", help="show each phase of the start with its time, as `vmctl up` on a terminal"
    )


@contextmanager
def shown(*, verbose: bool = False, quiet: bool = False) -> Iterator[Progress]:
    """Yield a function that shows the progress of a start: each phase on a terminal, or if `verbose` is set.

    With `quiet` it shows only what happens now. The line about that is removed at the end.
    """
    lines = in_lines(verbose=verbose, quiet=quiet)
    view = _View(lines=lines, progress=output.Progress(quiet=lines and not sys.stderr.isatty()))
    try:
        yield view
    finally:
        view.end()


def in_lines(*, verbose: bool, quiet: bool) -> bool:
    """Return whether each phase of a start gets a line."""
    return verbose or (sys.stderr.isatty() and not quiet)


class _View:
    """The progress of the starts of one command, one after the other."""

    def __init__(self, *, lines: bool, progress: output.Progress) -> None:
        self._lines, self._progress = lines, progress
        self._inst: Instance | None = None
        self._timeline: object = None  # that of the start that is shown
        self._count, self._next_s, self._begun_s = 0, 0.0, 0.0

    def __call__(self, inst: Instance, phase: str) -> None:
        """Show the phases that have ended since the last call; and, ten times a second, the phase it is in."""
        if inst.timeline is not self._timeline:
            self._timeline, self._count, self._begun_s = inst.timeline, 0, time.monotonic()
            if self._lines:
                self._print(f"{inst.name}: starts in mode {inst.state.mode}")
        self._inst = inst
        self._show_ended(inst)
        if phase == ATTENDED:
            self._progress.clear()
        elif self._progress.due() and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _PERIOD_S
            took = format_seconds(time.monotonic() - self._begun_s)
            self._progress(f"{inst.name}: {phase}, {took}  {_last_line(inst.console_log)}")

    def end(self) -> None:
        """Show the last phases, and remove the line about what happens now."""
        if self._inst is not None:
            self._show_ended(self._inst)
        self._progress.clear()

    def _show_ended(self, inst: Instance) -> None:
        if not self._lines:
            return
        found = phases.laps(inst.timeline.marks_ns)
        for lap in found[self._count :]:
            self._print(line(lap.phase, lap.took_s))
        self._count = max(self._count, len(found))

    def _print(self, text: str) -> None:
        self._progress.clear()
        output.note(text)


def line(phase: phases.Phase, took_s: float, name: str = "") -> str:
    """Return the line about a phase, with its reason if that fits; it begins with the name if several are started."""
    short = f"{name}  {phase.title:<{_TITLE}} {format_seconds(took_s):>{_TOOK}}"
    full = f"{short}  {phase.why}"
    return full if len(full) < columns() else short


def columns() -> int:
    """Return the width of the terminal; 0 if standard error is none."""
    with suppress(OSError):
        return os.get_terminal_size(2).columns or 80  # a terminal without a size reports 0
    return 0


def _last_line(path: str) -> str:
    """Return the last line of a console that contains printable text."""
    lines = console.lines(last_bytes(path, _LAST_BYTES).decode(errors="replace"))
    return next(filter(None, map(str.strip, reversed(lines))), "")
