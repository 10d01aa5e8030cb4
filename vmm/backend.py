"""Mode `vm`: the workload as a QEMU/KVM guest with a kernel of its own, through libvirt.

Only the contract is here; each method is a few lines on top of a module of this folder, imported when it is needed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from vmctl.backend import Command, Exit, Features, Footprint, Problem, Step, Writable
from vmctl.errors import EXIT_VMCTL, StateError
from vmctl.instance import Instance, State
from vmctl.linux import filetree, processes
from vmctl.linux.events import Events
from vmctl.named import TYPE_CHECKING
from vmctl.workload import Workload
from vmm import files

if TYPE_CHECKING:
    from socket import socket
    from typing import Any

    from vmm.preparation import Prepared
    from vmm.watch import Watch

EXIT_SIGNAL = 128  # a shell's exit code for signal n is 128 + n


class VmBackend:
    """The backend of mode `vm`. What is kept in here concerns a start under way in this process, nothing else."""

    mode = "vm"
    features = Features(own_kernel=True, own_network=True)

    def __init__(self) -> None:
        self._prepared: dict[str, Prepared] = {}
        self._watches: dict[str, Watch] = {}
        self._stdin: dict[str, socket] = {}

    def check(self, work: Workload) -> list[Problem]:
        """Return all that stands in the way of running `work` here."""
        from vmm import checks

        return list(checks.problems(work))

    def explain(self, work: Workload) -> Iterator[Step]:
        """Yield every host step of a start, without taking any."""
        from vmm import explain

        return explain.steps(work)

    def prepare(self, inst: Instance) -> None:
        """Make filetree, seed, tap and cgroup and open libvirt; sets image digest, accelerator, address and MAC."""
        from vmm import preparation

        self._forget(inst)
        self._prepared[inst.directory] = preparation.prepare(inst)

    def start(self, inst: Instance, *, attached: bool = False) -> None:
        """Have libvirt start the prepared domain, mark T1, set `inst.state.pid`."""
        from vmm import start

        prepared = self._prepared.pop(inst.directory)
        try:
            stdin = start.start(inst, prepared, attached=attached)
        finally:
            prepared.launcher.close()
        if stdin is not None:
            self._stdin[inst.directory] = stdin

    def observe(self, inst: Instance) -> str:
        """Mark T4 and T5 if they have happened and return the phase reached; raises for a start that failed."""
        from vmm.watch import Watch

        return self._watches.setdefault(inst.directory, Watch()).look(inst)

    def events(self, inst: Instance, *more: int) -> Events:
        """Return what wakes: each write of QEMU to a file of the instance, and its end."""
        return Events((), more, (inst.state.pid,), folder=inst.directory)

    def settled(self, inst: Instance) -> bool:
        """Return whether cloud-init has finished, where the guest boots a system; raises when that takes too long."""
        from vmm import watch

        return watch.settled(inst)

    def alive(self, inst: Instance) -> bool:
        """Return whether QEMU runs."""
        return processes.alive(inst.state.pid, inst.state.pid_start)

    def result(self, inst: Instance) -> Exit | None:
        """Return how the workload ended: the guest's own word, else that it was killed, else that it vanished."""
        from vmm import watch

        if (said := watch.ended(inst)) or inst.state.pid is None or self.alive(inst):
            return said
        if os.path.exists(files.killed(inst)):
            return Exit(EXIT_SIGNAL + signal.SIGKILL, "signal")
        return Exit(EXIT_VMCTL, "vmctl")

    def attend(self, inst: Instance) -> Exit:
        """Copy what the workload writes to this process's output until the guest is off; raises for a failed start."""
        from vmm import attend

        def more() -> bool:
            going_on = self.alive(inst)
            self.observe(inst)
            return going_on

        with self._stdin.pop(inst.directory, None) or nullcontext() as stdin:
            attend.stay((inst.stdout_log, inst.stderr_log), stdin, more, lambda signum: self.signal(inst, signum))
        return self.result(inst) or Exit(EXIT_VMCTL, "vmctl")

    def signal(self, inst: Instance, signum: int) -> None:
        """Have the guest's init send a signal to the workload; SIGKILL ends QEMU, whatever the guest is doing."""
        if not self.alive(inst):
            return  # it has just ended by itself
        if signum == signal.SIGKILL:
            open(files.killed(inst), "w").close()  # the guest cannot report this
            self._end(inst)
            return
        files.order(inst, f"signal {signum}")

    def exec(self, inst: Instance, command: Command) -> int:
        """Run one more command in the guest, over SSH, and return its exit code."""
        from vmm import execute

        if not self.alive(inst):
            raise StateError(f"{inst.name} is not running", hint=f"`vmctl start {inst.name}` starts it again")
        return execute.execute(inst, command)

    def footprint(self, inst: Instance) -> Footprint:
        """Return QEMU's memory, the instance's own files, and the files it shares: layers, kernel and initrd."""
        from vmm.footprint import footprint

        return footprint(inst)

    def reads(self, work: Workload) -> list[str]:
        """Return what a guest is made of, and QEMU with its libraries and firmware."""
        from images.store import store
        from vmm import preparation, qemu

        image = store.find(work.image)
        machine = preparation.machine_of(Instance(work.name, work, State()), image)
        return [*preparation.shared_files(machine, image), *qemu.files(machine.emulator)]

    def writable(self, inst: Instance, *, pause: bool) -> AbstractContextManager[Writable]:
        """Lend a copy of the guest's writable layer. A running guest's writing is held, asked for or not: see there."""
        from vmm import writable

        return writable.writable(inst)

    def undo(self, inst: Instance, entry: dict[str, Any]) -> None:
        """Undo kind `domain`: end QEMU, however far its start came, and remove libvirt's files."""
        if entry["kind"] == "domain":
            self._forget(inst)
            self._end(inst)
            filetree.remove_tree(files.libvirt_root(inst))

    def _end(self, inst: Instance) -> None:
        """End QEMU by its pid: with an embedded driver nobody else could, and a daemon notices by itself."""
        from vmm import domain, qemu

        qemu.end(files.pid_file(inst), domain.machine_uuid(inst.state.id))

    def _forget(self, inst: Instance) -> None:
        """Close what a start in this process has opened and not used up."""
        if prepared := self._prepared.pop(inst.directory, None):
            prepared.launcher.close()
        if stdin := self._stdin.pop(inst.directory, None):
            stdin.close()
        self._watches.pop(inst.directory, None)
