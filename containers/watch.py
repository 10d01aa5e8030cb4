"""One process's view of a container that has been started: whether it runs, how it ended, what it has written."""

from __future__ import annotations

import select
import signal

from vmctl.backend import Exit
from vmctl.instance import Instance
from vmctl.linux import processes
from vmctl.linux.cgroups import Cgroup
from vmctl.linux.events import Events
from vmctl.linux.filetree import size_bytes
from vmctl.named import NamedTuple

EXIT_FILE = "exit"  # written by the supervisor: CODE SOURCE
REPLACED_SIGNAL = "replaced_signal"  # the signal in whose place a SIGKILL was sent


class Outputs(NamedTuple):
    """How the process that starts a container learns of its first output, and of more in its logs."""

    streams: tuple[int, int]  # copies of both reading ends, to be polled only
    written: int  # eventfd(2): the supervisor has written to a log


class ContainerWatch:
    """See vmctl.backend.Watch. `outputs` only in the process that has started the container."""

    own_kernel = False

    def __init__(self, inst: Instance, outputs: Outputs | None = None) -> None:
        self.inst = inst
        self._outputs = outputs

    def alive(self) -> bool:
        """See Watch."""
        state = self.inst.state
        # the supervisor runs a moment longer, until it has written how the workload ended
        return processes.alive(state.pid, state.pid_start) or processes.alive(
            state.supervisor_pid, state.supervisor_start
        )

    def result(self) -> Exit | None:
        """See Watch."""
        try:
            with open(self.inst.path(EXIT_FILE), encoding="ascii") as file:
                code, source = file.read().split()
        except FileNotFoundError:
            return None
        return explained(self.inst, Exit(int(code), source))

    def observe(self) -> str:
        """See Watch."""
        inst = self.inst
        if "T5" in inst.timeline.marks_ns:
            return "output"
        # our copies of the pipes show bytes that the supervisor has not taken yet, its logs those that it has
        waiting = self._outputs is not None and any(select.select(self._outputs.streams, [], [], 0)[0])
        if waiting or any(size_bytes(path) for path in (inst.stdout_log, inst.stderr_log)):
            inst.timeline.mark("T5")
        return "started"

    def events(self, *more: int) -> Events:
        """See Watch: the first byte, what the supervisor has written, and the end of both."""
        pids = (self.inst.state.pid, self.inst.state.supervisor_pid)
        if self._outputs is None:  # another process has started it
            return Events((), more, pids, often=True)
        return Events((self._outputs.written,), (*more, *self._outputs.streams), pids)

    def settled(self) -> bool:
        """See Watch: nothing boots around the workload."""
        return True


def explained(inst: Instance, result: Exit) -> Exit:
    """Return the cause of a SIGKILL: the kernel when memory ran out, or vmctl in place of a signal it would drop."""
    if result.code != 128 + signal.SIGKILL:
        return result
    if Cgroup(inst.cgroup).oom_kills():
        return Exit(result.code, "oom")
    try:
        with open(inst.path(REPLACED_SIGNAL), encoding="ascii") as file:
            return Exit(128 + int(file.read()), "signal")
    except FileNotFoundError:
        return Exit(result.code, "signal")
