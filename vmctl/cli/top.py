"""vmctl top."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl import backends, engine, stats
from vmctl.backend import HasUsage
from vmctl.cli import output, selection
from vmctl.cli import stats as table
from vmctl.errors import StateError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vmctl.stats import Usage

EXAMPLE = "vmctl top"
PROCESS = ("pid", "user", "time", "memory", "command")
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # xterm: the other screen, without a cursor
_HOME, _REST = "\x1b[H", "\x1b[J"


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="list the processes of this instance (default: all instances, live)"
    )
    parser.add_argument("--no-stream", action="store_true", help="print one table and return")
    output.add_format(parser)


def run(args: Namespace) -> int:
    """Show the processes of instances, or all instances live, those that use most first; q ends it."""
    for name in args.names:
        _show_processes(name, args.format)
    if args.names:
        return 0
    sampler = stats.Sampler()
    found = sampler.begin(table.chosen([]))
    if args.no_stream or args.format != "table" or not (sys.stdout.isatty() and os.isatty(0)):
        table.show(_sorted(sampler.look(found)), args.format, live=False)
        return 0
    with _screen():
        while True:
            sys.stdout.write(_HOME + _REST)
            table.show(_sorted(sampler.look(table.chosen([]))), "table", live=False)
            if _quits(table.PERIOD_S):
                return 0


def _sorted(rows: list[Usage]) -> list[Usage]:
    return sorted(rows, key=lambda row: (-(row.cpu_percent or 0), -(row.memory_bytes or 0), row.name))


def _show_processes(name: str, form: str) -> None:
    inst = selection.one(name)
    if engine.status(inst) != "running":
        raise StateError(f"{name} is not running", hint="`vmctl ps` lists running instances")
    able = backends.ability(backends.load(inst.state.mode, inst.state.options), HasUsage)
    output.show([dict(zip(PROCESS, row, strict=True)) for row in able.listing(inst)], PROCESS, form)


@contextmanager
def _screen() -> Iterator[None]:
    """Use the other screen of the terminal, with keys that are read at once; Ctrl-C is a signal as before."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        sys.stdout.write(_ENTER)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _quits(timeout_s: float) -> bool:
    """Wait; return whether q, Q or an end of the input came."""
    end_s = time.monotonic() + timeout_s
    while (left_s := end_s - time.monotonic()) > 0:
        if select.select([0], [], [], left_s)[0] and os.read(0, 1) in (b"q", b"Q", b"", b"\x1b"):
            return True
    return False
