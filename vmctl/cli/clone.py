"""vmctl clone."""

from __future__ import annotations

import argparse
import os

from vmctl.cli import leasing, output, startshow, up
from vmctl.errors import SpecError
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_seconds, format_size

if TYPE_CHECKING:
    from vmctl.instances.instance import Instance
    from vmctl.snapshots.cloning import Clone
    from vmctl.snapshots.record import Snapshot
    from vmctl.spec.workload import Port, Workload

EXAMPLE = "vmctl clone golden 8 --name test"


def arguments(parser: argparse.ArgumentParser) -> None:
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
    up.add_wait(parser)
    parser.add_argument("--keep", action="store_true", help="keep a clone if its start fails, to look into it")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")


def run(args: argparse.Namespace) -> int:
    """Start the clones and print a line for each: name, time, memory, disk."""
    from vmctl.snapshots import cloning, record

    if args.jobs < 1:
        raise SpecError(f"--jobs has to be at least 1, not {args.jobs}")
    leasing.complete()
    snapshot = cloning.source(args.source)
    try:
        return _started(args, snapshot)
    finally:
        record.remove_temporary(snapshot.name, snapshot.id)  # if no clone was started


def _started(args: argparse.Namespace, snapshot: Snapshot) -> int:
    from vmctl.snapshots import cloning

    names = cloning.names_of(snapshot, args.count, args.name)
    work = snapshot.work
    ports = cloning.ports_of(work, len(names), _published(args.publish), free=args.free_ports)
    works = [cloning.of(snapshot, name, ports) for name in names]
    cloning.check(snapshot, works)

    def begun(one: Workload) -> Instance:
        return cloning.clone(snapshot, one, wait=args.wait, keep=args.keep)

    def ready(clone: Clone) -> None:
        _show(clone, quiet=args.quiet)

    if len(works) > 1:
        failures = cloning.clones(snapshot, works, begun, jobs=args.jobs, ready=ready)
        for error in failures[1:]:
            output.note(f"also: {error}")
        if failures:
            raise failures[0]
        return 0
    with startshow.shown(quiet=True) as progress:

        def start(name: str) -> Instance:
            one = cloning.of(snapshot, name, ports)
            return cloning.clone(snapshot, one, wait=args.wait, keep=args.keep, progress=progress)

        inst = start(names[0]) if args.name else cloning.retried(snapshot, start)
    ready(cloning.cost(inst))
    return 0


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
