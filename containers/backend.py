"""The backends `container` and `host`: one code, with namespaces or without."""

from __future__ import annotations

import select
import signal
from collections.abc import Iterator

from vmctl.backend import Command, Exit, Features, Footprint, Problem, Step, Writable
from vmctl.errors import StateError, VmctlError
from vmctl.instance import Instance, write_atomic
from vmctl.linux import processes
from vmctl.linux.cgroups import Cgroup
from vmctl.linux.events import Events
from vmctl.linux.filetree import size_bytes
from vmctl.named import TYPE_CHECKING
from vmctl.workload import Workload

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from containers.launch import Launch
    from containers.start import Ears

# the signals by which people ask a process to end; their default action is to end it (signal(7))
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

STOOD_FOR = "stood_for"  # the file that says which signal a SIGKILL of ours stood for


class ContainerBackend:
    """A process in namespaces of its own, on the image's layers, in a cgroup."""

    mode = "container"
    features = Features(own_network=True, volumes=True, tty=True)
    namespaced = True

    def __init__(self) -> None:
        self._launches: dict[str, Launch] = {}
        self._ears: dict[str, Ears] = {}
        self._master: int | None = None  # of an attached workload's terminal

    def check(self, work: Workload) -> list[Problem]:
        """See Backend."""
        from containers.checks import problems

        return list(problems(work, namespaced=self.namespaced))

    def explain(self, work: Workload) -> Iterator[Step]:
        """See Backend."""
        from containers.explain import steps

        return steps(work, namespaced=self.namespaced)

    def prepare(self, inst: Instance) -> None:
        """See Backend."""
        # The rest is imported for its own sake: after T0 it would count as the container's start, and behind
        # pivot_root it would not be found.
        from containers import preparation, start  # noqa: F401

        if not inst.attached:
            from containers import supervisor  # noqa: F401
        if inst.tty:
            from containers import terminals  # noqa: F401
        self._launches[inst.name] = preparation.prepare(inst, namespaced=self.namespaced)

    def start(self, inst: Instance, *, attached: bool = False) -> None:
        """See Backend."""
        from containers import start

        launch = self._launches[inst.name]
        if attached:
            self._master = start.start_attached(inst, launch)
        else:
            self._ears[inst.name] = start.start_detached(inst, launch)

    def observe(self, inst: Instance) -> str:
        """See Backend."""
        if "T5" in inst.timeline.marks_ns:
            return "output"
        # our copies of the pipes show bytes that the supervisor has not taken yet, its logs show those it has
        ears = self._ears.get(inst.name)
        waiting = ears is not None and any(select.select(ears.streams, [], [], 0)[0])
        if waiting or any(size_bytes(path) for path in (inst.stdout_log, inst.stderr_log)):
            inst.timeline.mark("T5")
        return "started"

    def events(self, inst: Instance, *more: int) -> Events:
        """See Backend: the first byte, what the supervisor has written, and both their ends."""
        ears = self._ears.get(inst.name)
        pids = (inst.state.pid, inst.state.keeper_pid)
        if ears is None:  # another process has started it
            return Events((), more, pids, often=True)
        return Events((ears.bell,), (*more, *ears.streams), pids)

    def settled(self, inst: Instance) -> bool:
        """See Backend: nothing comes up around the workload."""
        return True

    def alive(self, inst: Instance) -> bool:
        """See Backend."""
        # the supervisor is there a moment longer, until it has written how the workload ended
        keeper = inst.state.extra.get("keeper_start")
        return processes.alive(inst.state.pid, inst.state.pid_start) or processes.alive(inst.state.keeper_pid, keeper)

    def result(self, inst: Instance) -> Exit | None:
        """See Backend."""
        from containers.start import EXIT_FILE

        try:
            with open(inst.path(EXIT_FILE), encoding="ascii") as file:
                code, source = file.read().split()
        except FileNotFoundError:
            return None
        return self._explained(inst, Exit(int(code), source))

    def attend(self, inst: Instance) -> Exit:
        """See Backend."""
        from containers.attend import attend

        return self._explained(inst, attend(inst, self._master))

    def _explained(self, inst: Instance, result: Exit) -> Exit:
        """Return what is behind a SIGKILL: the kernel for want of memory, or ourselves for a signal it would drop."""
        if result.code != 128 + signal.SIGKILL:
            return result
        if Cgroup(inst.cgroup).oom_kills():
            return Exit(result.code, "oom")
        try:
            with open(inst.path(STOOD_FOR), encoding="ascii") as file:
                return Exit(128 + int(file.read()), "signal")
        except FileNotFoundError:
            return Exit(result.code, "signal")

    def signal(self, inst: Instance, signum: int) -> None:
        """See Backend.

        PID 1 of a namespace gets no signal that it has no handler for (pid_namespaces(7)): what would end any other
        process would be dropped. It ends the workload here as in the other modes.
        """
        pid = inst.state.pid
        if pid and self.namespaced and signum in ENDING and not processes.handles(pid, signum):
            write_atomic(inst.path(STOOD_FOR), str(signum))
            signum = signal.SIGKILL
        processes.send(pid, inst.state.pid_start, signum)

    def exec(self, inst: Instance, command: Command) -> int:
        """See Backend."""
        from containers import enter
        from containers.preparation import resume

        if not self.alive(inst):
            raise StateError(f"{inst.name} is not running", hint=f"`vmctl logs {inst.name}` shows what it said")
        return enter.run(inst, resume(inst, namespaced=self.namespaced), command)

    def footprint(self, inst: Instance) -> Footprint:
        """See Backend."""
        from containers.footprint import footprint

        return footprint(inst)

    def reads(self, work: Workload) -> list[str]:
        """See Backend: the layers, and what is read through their mounts where other instances keep them."""
        from images.layer import mounts
        from images.store import store

        layers = store.find(work.image).layers
        return [path for layer in layers for path in (layer.path, mounts.mount_point(layer.key))]

    def writable(self, inst: Instance, *, pause: bool) -> AbstractContextManager[Writable]:
        """See Backend."""
        from containers.writable import writable

        return writable(inst, pause=pause and self.alive(inst))

    def undo(self, inst: Instance, entry: dict[str, Any]) -> None:
        """See Backend."""
        from images.layer import mounts

        if entry["kind"] != mounts.KIND:
            raise VmctlError(f"the journal of {inst.name} has an entry of an unknown kind: {entry['kind']}")
        mounts.release_layer(entry["key"], inst.journal)


class HostBackend(ContainerBackend):
    """A plain process of the host in the image's root directory: the baseline, every namespace off."""

    mode = "host"
    features = Features(volumes=True)
    namespaced = False
