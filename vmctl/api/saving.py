"""Requests about snapshots and clones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vmctl.api import verbs
from vmctl.instances import instance
from vmctl.snapshots import cloning, record, taking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmctl.api.worker import Caller
    from vmctl.engine import Progress
    from vmctl.instances.instance import Instance
    from vmctl.snapshots.record import Snapshot
    from vmctl.spec.workload import Workload


def _described(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "name": snapshot.name,
        "id": snapshot.id,
        "mode": snapshot.mode,
        "size_bytes": snapshot.size_bytes,
        "seconds": snapshot.took_s,
        "pause_seconds": snapshot.pause_s,
        "left_out": list(snapshot.left_out),
    }


def snapshot(given: Mapping[str, Any], caller: Caller) -> Any:
    """Take a snapshot of an instance."""
    return _described(taking.take(verbs.load(dict(given)), given["snapshot"]))


def find(given: Mapping[str, Any], caller: Caller) -> Any:
    """Return a snapshot that exists."""
    return _described(record.find(given["snapshot"]))


def remove(given: Mapping[str, Any], caller: Caller) -> Any:
    """Remove a snapshot."""
    record.remove(given["snapshot"])


def clones(given: Mapping[str, Any], caller: Caller) -> Any:
    """Start clones; send an event `clone` for each, as soon as it is ready."""
    found = record.find(given["snapshot"])
    names = cloning.names_of(found, given["count"], given["name"])
    ports = cloning.ports_of(found.work, len(names), None, free=given["free_ports"])
    works = [cloning.of(found, name, ports) for name in names]
    cloning.check(found, works)

    started, keep = _Started(), given["keep"]

    def begun(work: Workload) -> Instance:
        def begin(progress: Progress) -> Instance:
            return cloning.clone(found, work, wait=given["wait"], progress=progress, keep=keep, measured=False)

        return verbs.started(begin, caller, started.add, keep=keep)

    def ready(clone: cloning.Clone) -> None:
        caller.send("clone", {**verbs.described(instance.load(clone.name)), "seconds": clone.took_s})

    try:
        failures = cloning.clones(found, works, begun, jobs=given["jobs"] or os.cpu_count() or 1, ready=ready)
        if failures:
            failures[0].detail += "".join(f"\nalso: {error}" for error in failures[1:])
            raise failures[0]
    except BaseException:  # all of them or none
        for name, identity in started.all():
            verbs.removed(name, identity)
            caller.releases(name, identity)
        raise


def diff(given: Mapping[str, Any], caller: Caller) -> list[list[str]]:
    """Return kind and path of each file of an instance that differs from its image."""
    from images.layer import changes, layers
    from images.recipes import commit
    from images.store import store
    from vmctl import lending

    inst = verbs.load(dict(given))
    image = store.find(inst.image)
    commit.require_layers(image, inst.name)
    with lending.writable(inst, pause=False) as writable:
        found = changes.changes((*image.layers, *map(layers.at, writable.below)), writable)
    return [[change.kind, os.fsencode(change.path).decode(errors="backslashreplace")] for change in found]


class _Started:
    """The clones that forked processes have started: in a file in memory, because they may end before they report."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("started")
        self._end = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def add(self, inst: Instance) -> None:
        """Add a clone; each write goes to the end of the file, so those of several processes are not mixed."""
        os.write(self._end, f"{inst.name} {inst.id}\n".encode())

    def all(self) -> list[list[str]]:
        """Return name and id of each."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._fd), encoding="ascii") as file:
            return [line.split() for line in file]
