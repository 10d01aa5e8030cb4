"""Mode `vm`: the workload runs as a QEMU/KVM guest with its own kernel, through libvirt.

This file only implements the contract: each method calls a module of this folder, which is imported when it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from vmctl import trace
from vmctl.backend import (
    Attachment,
    Command,
    Features,
    Footprint,
    HasByHand,
    HasCauses,
    HasConsole,
    HasCopy,
    HasFootprint,
    HasOomKills,
    HasOwnSize,
    HasPause,
    HasReads,
    HasReceipt,
    HasUpdate,
    HasUsage,
    HasWritable,
    Problem,
    Start,
)
from vmctl.errors import StateError
from vmctl.instances.folder import Home
from vmctl.instances.instance import Instance
from vmctl.linux import filetree, processes
from vmctl.linux.cgroups import Cgroup
from vmctl.named import TYPE_CHECKING
from vmctl.records import UnreadableError
from vmctl.snapshots.protocol import HasSnapshots
from vmctl.spec.workload import Bytes, Resources, Workload
from vmctl.suspending import HasSuspend
from vmm import files
from vmm.choices import OPTIONS, Choices

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Literal

    from vmctl.copying.pack import Rules
    from vmctl.copying.place import Target
    from vmctl.leases import User
    from vmctl.needs import Need
    from vmctl.snapshots.protocol import Taken
    from vmctl.snapshots.record import Snapshot
    from vmctl.steps import Step
    from vmctl.writable import Writable
    from vmm.watch import GuestWatch


class VmBackend(
    HasFootprint,
    HasWritable,
    HasReads,
    HasOwnSize,
    HasCauses,
    HasConsole,
    HasOomKills,
    HasPause,
    HasCopy,
    HasUsage,
    HasReceipt,
    HasUpdate,
    HasByHand,
    HasSnapshots,
    HasSuspend,
):
    """The backend of mode `vm`."""

    mode = "vm"
    features = Features(own_kernel=True, own_network=True, volumes=True, tty=True)
    options = OPTIONS

    def __init__(self, **options: str) -> None:
        self.choices = Choices(**options)

    def needs(self) -> Iterable[Need]:
        """See Backend."""
        from vmm import needs

        return needs.needs()

    def check(self, work: Workload) -> list[Problem]:
        """See Backend."""
        from vmm import checks

        return list(checks.problems(work, self.choices))

    def explain(self, work: Workload) -> Iterator[Step]:
        """See Backend."""
        from vmm import explain

        # the steps are those of a start that boots: nothing saves the guest of a script
        return explain.steps(work._replace(vm=work.vm._replace(warm="off")), self.choices)

    def by_hand(self, work: Workload) -> list[Problem]:
        """See HasByHand."""
        from vmm.hypervisor import problems

        return list(problems(work))

    def prepare(self, inst: Instance, attachment: Attachment | None = None) -> Start:
        """See Backend: creates disk, seed, tap and cgroup and opens libvirt; also sets accelerator and MAC."""
        from vmm import preparation
        from vmm.guest import WAITS
        from vmm.start import GuestStart

        if os.path.exists(files.disk(inst)):
            from vmm import idle

            idle.end_left(inst)
        attached, owned = attachment is not None, attachment is not None and attachment.tty
        made = preparation.prepare(inst, self.choices, owned=owned, attached=attached)
        if made.origin is not None:
            from vmm.saved.start import SavedStart

            if made.origin.resumes:
                from vmm.saved.suspension import ResumedStart as SavedStart
            may_boot = self.choices.of(inst.work).vm.warm == "auto"
            return SavedStart(inst, *made[:3], attachment, origin=made.origin, links=made.links, may_boot=may_boot)
        if WAITS in made.machine.cmdline:
            from vmm.saved.start import TemplateStart

            return TemplateStart(inst, *made[:3], attachment)
        if trace.gate is not None:
            from vmm.stepped import SteppedStart

            return SteppedStart(inst, *made[:3], attachment)
        return GuestStart(inst, *made[:3], attachment)

    def watch(self, inst: Instance) -> GuestWatch:
        """See Backend."""
        from vmm.watch import GuestWatch

        return GuestWatch(inst)

    def signal(self, inst: Instance, signum: int) -> None:
        """See Backend: the guest's init sends the signal to the workload; SIGKILL ends QEMU."""
        from vmm import control

        control.send(inst, signum)

    def exec(self, inst: Instance, command: Command) -> int:
        """See Backend: through our agent in the guest, or over SSH if the guest's init is the image's."""
        from vmm import execute

        if not processes.alive(inst.state.pid, inst.state.pid_start):
            raise StateError(f"{inst.name} is not running", hint=f"`vmctl logs {inst.name}` shows its last output")
        return execute.execute(inst, command)

    def footprint(self, inst: Instance) -> Footprint:
        """See HasFootprint: QEMU's memory, the instance's files, and shared files: layers, kernel and initrd."""
        from vmm.footprint import footprint

        return footprint(inst)

    def reads(self, work: Workload) -> list[str]:
        """See HasReads: the files of the guest, and QEMU with its libraries and firmware."""
        from images.store import store
        from vmm import preparation, qemu

        image = store.find(work.image)
        machine = preparation.machine_of(work, Home(work.name, "0" * 8), image, "tcg")
        return [*preparation.shared_files(machine, image), *qemu.files(machine.emulator)]

    def writable(self, inst: Instance, *, pause: bool) -> AbstractContextManager[Writable]:
        """See HasWritable: a copy. A running guest's writing is blocked even without `pause`, see vmm/writable.py."""
        from vmm import writable

        return writable.writable(inst)

    def cause(self, inst: Instance) -> tuple[Literal["exited", "failed"], str]:
        """See HasCauses: the last words of the guest's kernel or of QEMU."""
        from vmm import watch

        return watch.cause(inst)

    def reboots(self, inst: Instance) -> int:
        """See HasCauses: as the guest reports it."""
        from vmm import watch

        return watch.reboots(inst)

    def own_size(self, work: Workload) -> Resources:
        """See HasOwnSize. Raises VmctlError if the image does not exist."""
        from images.store import store
        from vmm import preparation

        machine = preparation.machine_of(work, Home(work.name, "0" * 8), store.find(work.image), "tcg")
        return Resources(cpus=work.resources.cpus or float(machine.vcpus), memory_bytes=Bytes(machine.memory_bytes))

    def oom_kills(self, inst: Instance) -> int:
        """See HasOomKills: those of the host, and those that the guest's kernel has reported on its console."""
        from vmm import watch

        return Cgroup(inst.cgroup).oom_kills() + watch.reported_oom_kills(inst)

    def pause(self, inst: Instance) -> None:
        """See HasPause: QEMU stops the guest's processors and clock."""
        from vmm import monitor

        monitor.ask(inst, "stop")

    def resume(self, inst: Instance) -> None:
        """See HasPause."""
        from vmm import monitor

        monitor.ask(inst, "cont")

    def reached(self, inst: Instance) -> AbstractContextManager[Instance]:
        """See HasCopy: a guest that does not run is reached through another one on its disk."""
        from vmm import idle

        return idle.reached(inst)

    def copy_out(self, inst: Instance, path: str, fd: int, rules: Rules, *, follow: bool) -> list[str]:
        """See HasCopy."""
        from vmm import copying

        return copying.out(inst, path, fd, rules, follow=follow)

    def copy_in(self, inst: Instance, target: Target, fd: int) -> list[str]:
        """See HasCopy."""
        from vmm import copying

        return copying.into(inst, target, fd)

    def processes(self, inst: Instance) -> list[int]:
        """See HasUsage: QEMU."""
        return [inst.state.pid] if processes.alive(inst.state.pid, inst.state.pid_start) and inst.state.pid else []

    def asked_inside(self, inst: Instance) -> Callable[[float], Mapping[str, int]]:
        """See HasUsage: our agent answers; a booted system has none."""
        from vmm import inside

        return inside.asked(inst)

    def listing(self, inst: Instance) -> list[tuple[str, str, str, str, str]]:
        """See HasUsage: by ps(1) in the guest."""
        from vmm import inside

        return inside.listing(inst)

    def receipt(self, inst: Instance) -> dict[str, Any]:
        """See HasReceipt: the marks of the guest's init."""
        from vmm import receipt

        return receipt.of(inst)

    def update(self, inst: Instance, wanted: Resources) -> dict[str, Any]:
        """See HasUpdate: the balloon of the guest, the quota of QEMU, and the group of the workload in the guest."""
        from vmm import updating

        return updating.update(inst, wanted)

    def console(self, inst: Instance, keys: bytes) -> bool:
        """See HasConsole: the serial console."""
        from vmm import console

        return console.converse(inst, keys)

    def snapshot_problems(self, inst: Instance) -> list[Problem]:
        """See HasSnapshots: with its memory a guest can be saved that has neither a balloon nor volumes."""
        from vmm.saved import taking

        return list(taking.problems(inst))

    def take_snapshot(self, inst: Instance, holder: User, *, running: bool) -> Taken:
        """See HasSnapshots: memory, devices and disk; of a guest that does not run its disk."""
        from vmm.saved import taking

        return taking.take(inst, holder, running=running)

    def clone_problems(self, snapshot: Snapshot, work: Workload) -> list[Problem]:
        """See HasSnapshots: memory of another QEMU or host, and changed files."""
        from vmm.saved import taking

        return list(taking.clone_problems(snapshot, work, self.choices))

    def drop_snapshot(self, snapshot: Snapshot) -> None:
        """See HasSnapshots: nothing is outside of the folder."""

    def suspend_problems(self, inst: Instance) -> list[Problem]:
        """See HasSuspend: volumes, and systems."""
        from vmm.saved import suspension

        return list(suspension.problems(inst))

    def suspend(self, inst: Instance, recorded: Callable[[], None]) -> int:
        """See HasSuspend: memory and devices; the disk stays where it is."""
        from vmm.saved import suspension

        return suspension.suspend(inst, recorded)

    def check_suspended(self, inst: Instance) -> None:
        """See HasSuspend."""
        from vmm.saved import suspension

        suspension.check(inst)

    def is_suspended(self, inst: Instance) -> bool:
        """See HasSuspend."""
        from vmm.saved import suspension

        return suspension.is_whole(inst)

    def undo(self, inst: Instance, entry: dict[str, Any]) -> None:
        """See Backend. Kind `domain`: kills QEMU at any stage of its start and removes libvirt's files."""
        from vmm import control

        if entry["kind"] != "domain":
            raise UnreadableError(f"the journal of {inst.name} contains an entry of unknown kind: {entry['kind']}")
        control.end(inst)
        filetree.remove_tree(files.libvirt_root(inst))
