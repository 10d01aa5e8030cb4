"""The backends `container` and `host`: the same code, with namespaces or without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from containers.watch import ContainerWatch, deliver, make_room
from vmctl.backend import (
    Attachment,
    Command,
    Features,
    Footprint,
    HasByHand,
    HasCopy,
    HasFootprint,
    HasOomKills,
    HasPause,
    HasReads,
    HasReceipt,
    HasUpdate,
    HasUsage,
    HasWritable,
    Option,
    Problem,
    Start,
)
from vmctl.errors import StateError
from vmctl.instances.instance import Instance
from vmctl.linux.cgroups import Cgroup
from vmctl.named import TYPE_CHECKING
from vmctl.records import UnreadableError
from vmctl.snapshots.protocol import HasSnapshots
from vmctl.spec.workload import Resources, Workload

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from vmctl.copying.pack import Rules
    from vmctl.copying.place import Target
    from vmctl.leases import User
    from vmctl.needs import Need
    from vmctl.snapshots.protocol import Taken
    from vmctl.snapshots.record import Snapshot
    from vmctl.steps import Step
    from vmctl.writable import Writable


class ContainerBackend(
    HasFootprint,
    HasWritable,
    HasReads,
    HasOomKills,
    HasPause,
    HasCopy,
    HasUsage,
    HasReceipt,
    HasUpdate,
    HasByHand,
    HasSnapshots,
):
    """A process in namespaces, on the image's layers, in a cgroup."""

    mode = "container"
    features = Features(own_network=True, volumes=True, tty=True)
    options: tuple[Option, ...] = ()
    namespaced = True

    def needs(self) -> Iterable[Need]:
        """See Backend."""
        from containers import needs

        return needs.needs(namespaced=self.namespaced)

    def check(self, work: Workload) -> list[Problem]:
        """See Backend."""
        from containers.checks import problems

        return list(problems(work, namespaced=self.namespaced))

    def explain(self, work: Workload) -> Iterator[Step]:
        """See Backend."""
        from containers.explain import steps

        return steps(work, namespaced=self.namespaced)

    def by_hand(self, work: Workload) -> list[Problem]:
        """See HasByHand."""
        from containers.byhand import problems

        return list(problems(work, namespaced=self.namespaced))

    def prepare(self, inst: Instance, attachment: Attachment | None = None) -> Start:
        """See Backend."""
        # Import all of it now: after T0 it would count as the container's start, after pivot_root it is out of reach.
        from containers import preparation
        from containers.start import ContainerStart

        if attachment is None or attachment.tty:
            from containers import supervisor  # noqa: F401
            from vmctl.linux import events  # noqa: F401

            make_room(inst)
        tty = inst.work.tty and (attachment is None or attachment.tty)
        if tty:
            from containers import terminals  # noqa: F401
        launch = preparation.prepare(inst, namespaced=self.namespaced, tty=tty, attached=attachment is not None)
        return ContainerStart(inst, launch, attachment)

    def watch(self, inst: Instance) -> ContainerWatch:
        """See Backend."""
        return ContainerWatch(inst)

    def signal(self, inst: Instance, signum: int) -> None:
        """See Backend."""
        deliver(inst, signum)

    def exec(self, inst: Instance, command: Command) -> int:
        """See Backend."""
        from containers import enter
        from containers.preparation import resume

        if not self.watch(inst).alive():
            raise StateError(f"{inst.name} is not running", hint=f"`vmctl logs {inst.name}` shows its output")
        return enter.run(inst, resume(inst, namespaced=self.namespaced), command)

    def footprint(self, inst: Instance) -> Footprint:
        """See HasFootprint."""
        from containers.footprint import footprint

        return footprint(inst)

    def reads(self, work: Workload) -> list[str]:
        """See HasReads: the layers, and their mounts, which other instances may keep."""
        from images.layer import mounts
        from images.store import store

        layers = store.find(work.image).stack
        return [path for layer in layers for path in (layer.path, mounts.mount_point(layer.key))]

    def writable(self, inst: Instance, *, pause: bool) -> AbstractContextManager[Writable]:
        """See HasWritable."""
        from containers.writable import writable

        return writable(inst, pause=pause and self.watch(inst).alive())

    def oom_kills(self, inst: Instance) -> int:
        """See HasOomKills."""
        return Cgroup(inst.cgroup).oom_kills()

    def pause(self, inst: Instance) -> None:
        """See HasPause: all its processes are frozen."""
        from vmctl.instances import freezer

        freezer.pause(inst)

    def resume(self, inst: Instance) -> None:
        """See HasPause."""
        from vmctl.instances import freezer

        freezer.resume(inst)

    def copy_out(self, inst: Instance, path: str, fd: int, rules: Rules, *, follow: bool) -> list[str]:
        """See HasCopy."""
        from containers import copying

        return copying.out(inst, path, fd, rules, follow=follow, namespaced=self.namespaced)

    def copy_in(self, inst: Instance, target: Target, fd: int) -> list[str]:
        """See HasCopy."""
        from containers import copying

        return copying.into(inst, target, fd, namespaced=self.namespaced)

    def processes(self, inst: Instance) -> list[int]:
        """See HasUsage."""
        from containers.footprint import pids

        return pids(inst, Cgroup(inst.cgroup))

    def listing(self, inst: Instance) -> list[tuple[str, str, str, str, str]]:
        """See HasUsage: read from the host's /proc."""
        from containers import listing

        return listing.listing(self.processes(inst))

    def receipt(self, inst: Instance) -> dict[str, Any]:
        """See HasReceipt: recorded when it was started."""
        return {**inst.state.receipt, "boot_id": inst.state.boot_id} if inst.state.receipt else {}

    def update(self, inst: Instance, wanted: Resources) -> dict[str, Any]:
        """See HasUpdate: the limits of its control group."""
        from containers import updating

        return updating.update(inst, wanted)

    def snapshot_problems(self, inst: Instance) -> list[Problem]:
        """See HasSnapshots: each has a writable layer."""
        return []

    def take_snapshot(self, inst: Instance, holder: User, *, running: bool) -> Taken:
        """See HasSnapshots."""
        from containers import snapshots

        return snapshots.take(inst, holder, running=running)

    def clone_problems(self, snapshot: Snapshot, work: Workload) -> list[Problem]:
        """See HasSnapshots."""
        from containers import kept

        return kept.problems(snapshot)

    def drop_snapshot(self, snapshot: Snapshot) -> None:
        """See HasSnapshots."""
        from containers import snapshots

        snapshots.drop(snapshot)

    def undo(self, inst: Instance, entry: dict[str, Any]) -> None:
        """See Backend."""
        from images.layer import mounts
        from vmctl.instances.undo import file_name

        if entry["kind"] != mounts.KIND:
            raise UnreadableError(f"the journal of {inst.name} contains an entry of unknown kind: {entry['kind']}")
        mounts.release_layer(file_name(entry["key"]), inst)


class HostBackend(ContainerBackend):
    """A plain process of the host in the image's root directory, without namespaces: the baseline."""

    mode = "host"
    features = Features(volumes=True, tty=True)
    namespaced = False
