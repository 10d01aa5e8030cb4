"""The ability of a mode to take snapshots of its instances, and to start instances from them.

`taking.py` calls `snapshot_problems`, then `take_snapshot` with an empty folder; `cloning.py` calls `clone_problems`.
A clone is an ordinary instance whose state names the snapshot, so it goes through `Backend.prepare` like any other one:
that calls `record.lease_of(inst)`, and uses what it finds in the snapshot's folder and facts.
"""

from __future__ import annotations

from collections.abc import Mapping

from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

    from vmctl.backend import Problem
    from vmctl.instances.instance import Instance
    from vmctl.leases import User
    from vmctl.snapshots.record import Snapshot
    from vmctl.spec.workload import Workload


class Taken(NamedTuple):
    """What a mode has written into the folder of a snapshot, and what it has seen of the instance."""

    facts: Mapping[str, Any]  # JSON values; only the mode reads them
    process_state: bool = False  # memory and processes are in it; else a clone begins with the workload's command
    pause_s: float = 0.0  # for so long the workload was stopped; 0 of one that did not run
    left_out: tuple[str, ...] = ()  # what clones do not have: a sentence each
    clone_memory_bytes: int = 0  # what a clone is expected to use; 0 if unknown
    clone_disk_bytes: int = 0  # what each clone takes on the disk before it writes anything


class HasSnapshots:
    """The ability to take a snapshot of an instance, running or not, and to start others from it."""

    ability = "take a snapshot of an instance"

    def snapshot_problems(self, inst: Instance) -> list[Problem]:
        """Return why no snapshot of an instance can be taken, before anything is done; empty if it can."""
        raise NotImplementedError

    def take_snapshot(self, inst: Instance, holder: User, *, running: bool) -> Taken:
        """Write what clones need into `holder.directory`; an instance that runs is paused meanwhile, and goes on.

        `holder` takes the leases of what clones need besides, such as the image. Raises VmctlError, OSError; then
        the caller removes the folder.
        """
        raise NotImplementedError

    def clone_problems(self, snapshot: Snapshot, work: Workload) -> list[Problem]:
        """Return why a snapshot cannot be used on this host with a workload; empty if it can. Changes nothing."""
        raise NotImplementedError

    def drop_snapshot(self, snapshot: Snapshot) -> None:
        """Remove what a snapshot has outside of its folder, which is removed afterwards; repeatable."""
