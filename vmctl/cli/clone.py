"""vmctl clone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl.cli import output
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_seconds, format_size

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from vmctl.engine import Progress
    from vmctl.instances.instance import Instance
    from vmctl.snapshots.cloning import Clone
    from vmctl.snapshots.record import Snapshot
    from vmctl.spec.workload import Port, Workload

EXAMPLE = "vmctl clone golden 8 --name test"
_WITH_VALUE = ("--name", "-p", "--publish", "-j", "--jobs")


def expand(words: list[str]) -> list[str]:
    """Return the words with flags last: argparse takes an optional argument only directly after the one before it."""
    given: list[str] = []
    flags: list[str] = []
    left = list(reversed(words))
    while left:
        word = left.pop()
        if not word.startswith("-"):
            given.append(word)
            continue
        flags.append(word)
        if word in _WITH_VALUE and left:
            flags.append(left.pop())
    return [*given, *flags]


def arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source", metavar="SNAPSHOT|NAME", help="snapshot; or instance, which goes on: its clones have what it is now"
    )
    parser.add_argument("count", metavar="N", nargs="?", type=int, default=1, help="number of clones (default: 1)")
    parser.add_argument(
        "--name", help="name of the clone, or of several NAME-1, NAME-2, ... (default: SNAPSHOT-1, ..., those free)"
    )
    parser.add_argument(
        "-p",
        "--publish",
        action="append",
        metavar="[ADDRESS:]HOST:GUEST[/udp]",
        help="publish this port, in place of those of the snapshot",
    )
    parser.add_argument(
        "--free-ports", action="store_true", help="publish each port at a free one of the host: see `vmctl port`"
    )
    parser.add_argument(
        "-j", "--jobs", type=int, default=os.cpu_count() or 1, help="starts at a time (default: number of processors)"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait until they are ready")
    parser.add_argument("--keep", action="store_true", help="keep a clone if its start fails, to look into it")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")


def run(args: Namespace) -> int:
    """Start the clones and print a line for each: name, time, memory, disk."""
    from vmctl.snapshots import cloning, record

    if args.jobs < 1:
        raise SpecError(f"--jobs has to be at least 1, not {args.jobs}")
    snapshot = cloning.source(args.source)
    try:
        return _started(args, snapshot)
    finally:
        record.remove_temporary(snapshot.name, snapshot.id)  # if no clone was started


def _started(args: Namespace, snapshot: Snapshot) -> int:
    from vmctl.snapshots import cloning

    names = cloning.names_of(snapshot, args.count, args.name)
    work = snapshot.work
    ports = cloning.ports_of(work, len(names), _published(args.publish), free=args.free_ports)
    works = [cloning.of(snapshot, name, ports) for name in names]
    cloning.check(snapshot, works)

    def begun(one: Workload, progress: Progress | None = None) -> Instance:
        wait, measured = not args.no_wait, not args.quiet
        return cloning.clone(snapshot, one, wait=wait, progress=progress, keep=args.keep, measured=measured)

    def ready(clone: Clone) -> None:
        _show(clone, quiet=args.quiet)

    if len(works) > 1:
        failures = cloning.clones(snapshot, works, begun, jobs=args.jobs, ready=ready)
        for error in failures[1:]:
            output.note(f"also: {error}")
        if failures:
            raise failures[0]
        return 0
    with _progress() as progress:
        if args.name:
            inst = begun(works[0], progress)
        else:
            inst = cloning.retried(snapshot, lambda name: begun(cloning.of(snapshot, name, ports), progress))
    ready(cloning.cost(inst))
    return 0


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Yield a function that shows on a terminal what happens now; None without one."""
    if not sys.stderr.isatty():
        yield None
        return
    from vmctl.cli import startshow

    with startshow.shown(quiet=True) as progress:
        yield progress


def _published(texts: list[str] | None) -> list[Port] | None:
    from vmctl.spec.scalars import PARSERS

    try:
        return None if texts is None else [PARSERS["Port"](text) for text in texts]
    except ValueError as error:
        raise SpecError(f"--publish: expected {error}") from None


def _show(clone: Clone, *, quiet: bool) -> None:
    print(clone.name, flush=True)
    if not quiet:
        memory, disk = map(_size, (clone.memory_bytes, clone.disk_bytes))
        output.note(f"{clone.name}: {format_seconds(clone.took_s)}, memory {memory}, disk {disk}")


def _size(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else format_size(size_bytes)
