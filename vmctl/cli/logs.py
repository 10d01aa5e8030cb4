"""vmctl logs."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress

from vmctl.cli import output
from vmctl.errors import NotFoundError, SpecError
from vmctl.folder import Home, absent
from vmctl.linux.stdio import write_all
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
    offsets = {path: _start(path, args.tail) for path in files}
    while True:
        more = args.follow and _runs(args.name)
        for path, fd in files.items():
            offsets[path] = _copy(path, offsets[path], fd)
        if not more:
            return 0
        time.sleep(POLL_S)


def _runs(name: str) -> bool:
    seen = look(name)
    return seen is not None and seen.status in ("running", "created")


def _start(path: str, lines: int | None) -> int:
    """Return the offset of the last `lines` lines of a file, 0 for all of it."""
    if lines is None:
        return 0
    with suppress(FileNotFoundError), open(path, "rb") as file:
        content = file.read()
        position = len(content)
        for _ in range(lines + content.endswith(b"\n")):
            position = content.rfind(b"\n", 0, position)
            if position < 0:
                return 0
        return position + 1 if lines else len(content)
    return 0


def _copy(path: str, offset: int, fd: int) -> int:
    """Copy a file from `offset` to its end and return the new offset."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        file.seek(offset)
        while data := file.read(65536):
            offset += len(data)
            write_all(fd, data)
    return offset
