"""vmctl logs."""

from __future__ import annotations

import argparse
import os
import time
from datetime import timedelta

from vmctl.cli import moments, output, selection
from vmctl.console import Filter
from vmctl.errors import NotFoundError
from vmctl.instances import lastrecord
from vmctl.instances.folder import Home, absent
from vmctl.linux.stdio import write_all
from vmctl.logs import timed
from vmctl.logs.logfile import OLDER
from vmctl.logs.timed import Piece, TimedLog
from vmctl.named import TYPE_CHECKING
from vmctl.survey import RUNNING, look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmctl.survey import Seen

EXAMPLE = "vmctl logs --follow --tail 20 web"
POLL_S = 0.05
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # of ECMA-48, SGR: cyan, yellow, green, ...


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="instance; or stack, by name or file")
    parser.add_argument("-f", "--follow", action="store_true", help="print new output until the workload exits")
    parser.add_argument(
        "-n", "--tail", type=_count, metavar="N", help="show only the last N lines, or all (the default)"
    )
    parser.add_argument("-t", "--timestamps", action="store_true", help="print the time of each line")
    parser.add_argument("--streams", action="store_true", help="print before each line whether it is stdout or stderr")
    parser.add_argument(
        "--since",
        type=moments.parse_ns,
        metavar="TIME",
        help="only lines since a time, such as 10m (ago) or 2026-01-31T12:00:00Z",
    )
    parser.add_argument("--until", type=moments.parse_ns, metavar="TIME", help="only lines before a time")
    parser.add_argument("--boot", action="store_true", help="show the guest's console, not the workload's output")


def run(args: argparse.Namespace) -> int:
    """Copy the workload's stdout to stdout and its stderr to stderr, in the order in which lines were written."""
    sources: dict[TimedLog, _Source] = {}
    args.names = selection.names(args.names)
    seen = list(map(_seen, args.names))  # kept to the end: see lastrecord.py
    for number, one in enumerate(seen):
        sources.update(_sources(one, args, _Prefix(args.names, number)))
    printer = _Printer(args)
    logs = list(sources)
    printer.skipped = 0 if args.tail is None else timed.skip_to_tail(logs, args.tail)
    left_bytes = sum(timed.size_bytes(log) for log in logs)
    while True:
        more = args.follow and any(map(_runs, args.names))
        for log, piece in timed.available(logs, final=not more):
            printer.show(sources[log], piece)
            left_bytes -= len(piece.data)
            if left_bytes <= 0 and not args.follow:  # one that writes without end is not read without end
                break
        if not more:
            printer.end()
            return 0
        time.sleep(POLL_S)


class _Source:
    """Where the lines of a log go, and what is printed before each."""

    def __init__(self, fd: int, prefix: str) -> None:
        self.fd, self.prefix = fd, prefix


def _seen(name: str) -> Seen:
    seen = look(name)
    if seen is None:
        raise absent(name)
    output.note_unknown([seen])
    if seen.instance is not None:
        lastrecord.hold(seen.instance)
    return seen


class _Prefix:
    """What is printed before each line of an instance: its name, if there are several, with a colour on a terminal."""

    def __init__(self, names: list[str], number: int) -> None:
        width = max(map(len, names))
        self.text = f"{names[number].ljust(width)} | " if len(names) > 1 else ""
        self.colour = COLOURS[number % len(COLOURS)]

    def on(self, fd: int) -> str:
        """Return the text for a stream."""
        if not self.text or not os.isatty(fd) or os.environ.get("NO_COLOR"):
            return self.text
        return f"\x1b[{self.colour}m{self.text}\x1b[0m"


def _sources(seen: Seen, args: argparse.Namespace, prefix: _Prefix) -> Iterator[tuple[TimedLog, _Source]]:
    home = Home(seen.name, "")
    if args.boot:
        if not any(map(os.path.exists, (home.console_log, home.console_log + OLDER))):  # it may be rotated just now
            mode = f": mode {seen.instance.state.mode} boots no kernel" if seen.instance else ""
            raise NotFoundError(f"{seen.name} has no console{mode}")
        yield TimedLog(home.console_log), _Source(1, prefix.on(1))
        return
    for path, fd, stream in ((home.stdout_log, 1, "stdout "), (home.stderr_log, 2, "stderr ")):
        yield TimedLog(path), _Source(fd, prefix.on(fd) + stream * args.streams)


class _Printer:
    """Writes pieces of logs: as they are, or with something before each line."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.since_ns, self.until_ns, self.times = args.since, args.until, args.timestamps
        self.skipped = 0  # so many lines are not shown
        self.filters = {fd: Filter() for fd in (1, 2) if os.isatty(fd)}
        self.unfinished: _Source | None = None  # the source of a line that has no end so far

    def show(self, source: _Source, piece: Piece) -> None:
        """Write the lines that are asked for."""
        if self.skipped:
            piece = piece._replace(data=self._without_skipped(piece.data))
        too_old = self.since_ns is not None and piece.time_ns < self.since_ns
        if not piece.data or too_old or (self.until_ns is not None and piece.time_ns >= self.until_ns):
            return
        self._write(source.fd, self._marked(source, piece) if source.prefix or self.times else piece.data)

    def end(self) -> None:
        """Write what the filters have kept back."""
        for fd, stream in self.filters.items():
            write_all(fd, stream.end())

    def _without_skipped(self, data: bytes) -> bytes:
        lines = data.splitlines(keepends=True) if self.skipped < data.count(b"\n") else []
        self.skipped, skipped = max(0, self.skipped - data.count(b"\n")), self.skipped
        return b"".join(lines[skipped:])

    def _marked(self, source: _Source, piece: Piece) -> bytes:
        prefix = (source.prefix + (f"{_stamp(piece.time_ns)} " if self.times else "")).encode()
        begin = b"" if self.unfinished is source else b"\n" * (self.unfinished is not None) + prefix
        complete = piece.data.endswith(b"\n")
        self.unfinished = None if complete else source
        body = piece.data[:-1] if complete else piece.data
        return begin + body.replace(b"\n", b"\n" + prefix) + b"\n" * complete

    def _write(self, fd: int, data: bytes) -> None:
        write_all(fd, self.filters[fd].feed(data) if fd in self.filters else data)


def _stamp(time_ns: int) -> str:
    """Return a time in RFC 3339 with microseconds, or a dash of the same width if it is not known."""
    if not time_ns:
        return "-".ljust(27)
    return (moments.EPOCH + timedelta(microseconds=time_ns // 1000)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _count(text: str) -> int | None:
    """Return the number of lines, None for all. Raises argparse.ArgumentTypeError."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"expected 0 or more, or all, got {text}")
    return int(text)


def _runs(name: str) -> bool:
    seen = look(name)
    return seen is not None and seen.status in (*RUNNING, "created")
