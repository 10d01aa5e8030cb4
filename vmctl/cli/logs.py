"""vmctl logs."""

from __future__ import annotations

import argparse
import os
import time

from vmctl.cli import output
from vmctl.console import Filter
from vmctl.errors import NotFoundError, SpecError
from vmctl.instances.folder import Home, absent
from vmctl.linux.stdio import write_all
from vmctl.logs.logfile import LogReader
from vmctl.survey import look

EXAMPLE = "vmctl logs --follow --tail 20 web"
POLL_S = 0.05


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="instance")
    parser.add_argument("-f", "--follow", action="store_true", help="print new output until the workload exits")
    parser.add_argument("--tail", type=int, metavar="N", help="show only the last N lines of each stream")
    parser.add_argument("--boot", action="store_true", help="show the guest's console, not the workload's output")


def run(args: argparse.Namespace) -> int:
    """Copy the workload's stdout to stdout and its stderr to stderr."""
    if args.tail is not None and args.tail < 0:
        raise SpecError(f"--tail: expected 0 or more, got {args.tail}")
    seen = look(args.name)
    if seen is None:
        raise absent(args.name)
    output.note_unknown([seen])
    home = Home(seen.name, "")
    if args.boot and not os.path.exists(home.console_log):
        mode = f": mode {seen.instance.state.mode} boots no kernel" if seen.instance else ""
        raise NotFoundError(f"{seen.name} has no console{mode}")
    files = {home.console_log: 1} if args.boot else {home.stdout_log: 1, home.stderr_log: 2}
    readers = {LogReader(path): fd for path, fd in files.items()}
    filters = {fd: Filter() for fd in readers.values() if os.isatty(fd)}
    for reader in readers if args.tail is not None else ():
        reader.skip_to_tail(args.tail)
    while True:
        more = args.follow and _runs(args.name)
        for reader, fd in readers.items():
            while data := reader.read():
                write_all(fd, filters[fd].feed(data) if fd in filters else data)
        if not more:
            for fd, stream in filters.items():
                write_all(fd, stream.end())
            return 0
        time.sleep(POLL_S)


def _runs(name: str) -> bool:
    seen = look(name)
    return seen is not None and seen.status in ("running", "created")
