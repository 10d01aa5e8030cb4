"""Start clones: instances that begin with the files, and perhaps the processes, of a snapshot."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from vmctl import backends, engine, problems
from vmctl.backend import Footprint, HasFootprint
from vmctl.errors import ConflictError, SpecError, UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.instances.folder import Home
from vmctl.instances.instance import Instance
from vmctl.linux import memory
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.snapshots import record
from vmctl.snapshots.protocol import HasSnapshots
from vmctl.snapshots.record import Snapshot
from vmctl.spec.rules import check_name
from vmctl.spec.units import format_size
from vmctl.spec.workload import Port, Workload

if TYPE_CHECKING:
    from typing import Any

    from vmctl.engine import Progress

MOST = 10_000  # clones of one command
LEAST_MEMORY_BYTES = 2 << 20  # of a clone about which nothing is known: a supervisor and an empty process


class Clone(NamedTuple):
    """A clone that runs, and what it has cost; None for what could not be measured."""

    name: str
    took_s: float  # from the command to its being ready
    memory_bytes: int | None  # of its control group, right after the start
    disk_bytes: int | None  # of its folder


def source(name: str) -> Snapshot:
    """Return the snapshot of this name, or a temporary one of the instance of this name, if no snapshot has it.

    A temporary one is removed with its last clone. Raises NotFoundError if neither exists, and the errors of `take`.
    """
    if name in record.names() and not record.is_unfinished(name):
        return record.find(name)
    try:
        inst = instance.load(name)
    except VmctlError as error:
        error.args = (f"there is no snapshot {name[:80]}, and {error}",)
        raise
    from vmctl.snapshots import taking

    return taking.take(inst, f"{name[:54]}-{os.urandom(4).hex()}", temporary=True)


def names_of(snapshot: Snapshot, count: int, name: str | None) -> list[str]:
    """Return names for clones: NAME for one, else NAME-1, NAME-2 and so on; without a name the next that are free.

    Raises ConflictError if a name is taken, SpecError if it cannot be used.
    """
    if not 1 <= count <= MOST:
        raise SpecError(f"the number of clones has to be between 1 and {MOST:,}, not {count}")
    if name is None:
        base = snapshot.origin if snapshot.temporary else snapshot.name
        free = _free(base[:57])  # with a number it is still a name
        found = [next(free) for _ in range(count)]
    else:
        found = [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
    for one in found:
        check_name(one)
        if os.path.lexists(Home(one, "").directory):
            raise instance.taken(one)
    return found


def _free(base: str) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        if not os.path.lexists(Home(f"{base}-{number}", "").directory):
            yield f"{base}-{number}"


def ports_of(work: Workload, count: int, asked: Sequence[Port] | None, *, free: bool) -> tuple[Port, ...]:
    """Return the ports that each clone publishes: those that are asked for, or those of the snapshot.

    With `free` each is published at a free port of the host. Raises SpecError if several clones would have the same.
    """
    ports = work.ports if asked is None else tuple(asked)
    if free:
        return tuple(port._replace(host_port=0, spare=0) for port in ports)
    if count > 1 and (fixed := [port for port in ports if port.host_port and not port.spare]):
        raise SpecError(
            f"{count} clones cannot all have the port {fixed[0].host_port} of the host",
            hint="with --free-ports each gets free ones, which `vmctl port NAME` shows",
        )
    return ports


def check(snapshot: Snapshot, works: Sequence[Workload]) -> None:
    """Raise VmctlError if the clones cannot be started here, before the first one is: mode, image, memory, disk."""
    backend = backends.ability(backends.load(snapshot.mode, snapshot.options), HasSnapshots)
    problems.refuse(f"{snapshot.name} cannot be cloned", backend.clone_problems(snapshot, works[0]))
    if works[0].ports:  # most often the instance that the snapshot was taken of has them
        from vmctl.net import ports

        for error in ports.refusals(works[0].ports):
            raise UnavailableError(
                f"{works[0].name} cannot be started: {error}", hint="with --free-ports it gets free ones, or use -p"
            )
    count = len(works)
    needed = count * max(snapshot.clone_memory_bytes, LEAST_MEMORY_BYTES)
    if needed > (available := _available_bytes()):
        raise UnavailableError(
            f"{count} clones of {snapshot.name} need about {format_size(needed)} of memory, "
            f"and {format_size(available)} are available",
            hint="start fewer; `vmctl stats` shows what uses memory",
        )
    disk = os.statvfs(snapshot.folder)
    if count * snapshot.clone_disk_bytes > disk.f_bavail * disk.f_frsize:
        raise UnavailableError(
            f"{count} clones of {snapshot.name} need {format_size(count * snapshot.clone_disk_bytes)} on the disk, "
            f"and {format_size(disk.f_bavail * disk.f_frsize)} are free",
            hint="start fewer; `vmctl df` shows what can be removed",
        )


def _available_bytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        return memory.meminfo(file.read())["MemAvailable"]


def _was_ready(snapshot: Snapshot, work: Workload) -> bool:
    """Return whether a clone is ready when it goes on: what its probe looks for was written before the snapshot."""
    return snapshot.process_state and work.ready is not None and work.ready.log is not None


def clone(
    snapshot: Snapshot,
    work: Workload,
    *,
    wait: bool = True,
    progress: Progress | None = None,
    keep: bool = False,
    measured: bool = True,
) -> Instance:
    """Start a clone and return it once it is ready; what its start has cost is in `state.snapshot`, see `cost`.

    `work` is the workload of the snapshot, with the name and the ports of the clone. Without `measured` only the time
    is recorded, which saves some milliseconds. Raises the errors of `engine.up`, and NotFoundError if the snapshot was
    removed meanwhile.
    """
    begun_s = time.monotonic()
    origin: dict[str, Any] = {"name": snapshot.name, "id": snapshot.id}
    inst = engine.up(
        work,
        snapshot.mode,
        options=snapshot.options,
        wait=wait and not _was_ready(snapshot, work),
        progress=progress,
        keep=keep,
        state={"snapshot": origin, "image_digest": snapshot.image_digest},
    )
    took_s = time.monotonic() - begun_s
    costs: dict[str, Any] = {"took_s": took_s}
    if measured and (found := _footprint(inst)):
        costs |= {"memory_bytes": found.cgroup_bytes or found.pss_bytes, "disk_bytes": found.disk_bytes}
    with suppress(VmctlError), inst.locked():  # removed or stopped meanwhile
        inst.state.snapshot = {**origin, **costs}
        inst.save()
    return inst


def _footprint(inst: Instance) -> Footprint | None:
    backend = backends.load(inst.state.mode, inst.state.options)
    with suppress(Exception):  # not every mode can measure its instances, and it may have just ended
        return backend.footprint(inst) if isinstance(backend, HasFootprint) else None
    return None


def cost(inst: Instance) -> Clone:
    """Return what the start of a clone has cost."""
    seen: Mapping[str, Any] = inst.state.snapshot or {}
    return Clone(inst.name, seen.get("took_s", 0.0), seen.get("memory_bytes"), seen.get("disk_bytes"))


def clones(
    snapshot: Snapshot,
    works: Sequence[Workload],
    begun: Callable[[Workload], Instance],
    *,
    jobs: int,
    ready: Callable[[Clone], None],
) -> list[VmctlError]:
    """Start clones, several at a time, call `ready` for each that runs, and return why others do not.

    `begun` starts one; it is called in a process that is forked for it. After a failure no other one is begun.
    """
    from vmctl.stacks import workers

    def act(work: Workload) -> Callable[[workers.Send], None]:
        return lambda send: send("ready", **cost(begun(work))._asdict())

    def report(job: str, event: str, values: Mapping[str, Any]) -> None:
        if event == "ready":
            ready(Clone(**values))

    found = workers.run([workers.Job(work.name, act(work)) for work in works], report, limit=jobs)
    return [failure.error for failure in found]


def of(snapshot: Snapshot, name: str, ports: tuple[Port, ...]) -> Workload:
    """Return the workload of a clone of this name: without a fixed address, and as part of no stack."""
    work = snapshot.work
    labels = work.labels
    if labels:
        from vmctl.net import SERVICE, STACK

        labels = {key: text for key, text in labels.items() if key not in (STACK, SERVICE)}
    network = work.network
    if not isinstance(network, str):
        network = network._replace(networks=tuple(one._replace(address=None) for one in network.networks))
    return work._replace(name=name, ports=ports, labels=labels, network=network)


def retried(snapshot: Snapshot, start: Callable[[str], Instance]) -> Instance:
    """Start one clone without a given name: under the next name if another command was quicker."""
    while True:
        name = names_of(snapshot, 1, None)[0]
        try:
            return start(name)
        except ConflictError:
            if not os.path.lexists(Home(name, "").directory):  # about something else
                raise
