"""Take a snapshot of an instance: what its clones begin with."""

from __future__ import annotations

import time
from contextlib import nullcontext

from vmctl import backends, engine, problems, records
from vmctl.errors import StateError
from vmctl.instances import instance
from vmctl.instances.instance import Instance
from vmctl.linux import filetree
from vmctl.named import TYPE_CHECKING
from vmctl.snapshots import record
from vmctl.snapshots.protocol import HasSnapshots
from vmctl.snapshots.record import Holder, Snapshot

if TYPE_CHECKING:
    from typing import Any


def take(inst: Instance, name: str, *, temporary: bool = False) -> Snapshot:
    """Take a snapshot of an instance, which goes on if it runs, and return it.

    Raises ConflictError if the name is taken, StateError if the instance was never started, UnavailableError if its
    mode, or this workload, allows no snapshot; then nothing was paused and nothing is left.
    """
    if inst.state.waiting:
        raise StateError(f"{inst.name} was never started: it has no files yet", hint=f"vmctl start {inst.name}")
    backend = backends.ability(backends.load(inst.state.mode, inst.state.options), HasSnapshots)
    problems.refuse(f"no snapshot of {inst.name} can be taken", backend.snapshot_problems(inst))
    begun_s = time.monotonic()
    with record.new(name) as holder:
        running = engine.status(inst) == "running"
        with nullcontext() if running else inst.locked():  # an attached run has the lock as long as it runs
            taken = backend.take_snapshot(inst, holder, running=running)
        instance.load(inst.name)  # if it was removed meanwhile, what was read may be incomplete
        snapshot = Snapshot(
            **_of_instance(inst, holder, name),
            **taken._asdict(),
            created_s=time.time(),
            took_s=time.monotonic() - begun_s,
            size_bytes=filetree.allocated_bytes(record.folder(name)),
            temporary=temporary,
        )
        record.write(snapshot)
    return snapshot


def _of_instance(inst: Instance, holder: Holder, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "id": holder.id,
        "mode": inst.state.mode,
        "options": inst.state.options,
        "workload": records.plain(inst.work),
        "image_digest": inst.state.image_digest or "",
        "origin": inst.name,
        "origin_id": inst.id,
    }
