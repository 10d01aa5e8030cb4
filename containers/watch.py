"""Watch a started container: whether it runs, how it ended, whether it has written output."""

from __future__ import annotations

import os
import select
from contextlib import suppress

from vmctl.backend import Exit
from vmctl.ends import is_supervised
from vmctl.instances.instance import Instance
from vmctl.light import re, signal
from vmctl.linux import processes
from vmctl.linux.cgroups import Cgroup
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vmctl.linux.events import Events

EXIT_FILE = "exit"  # `CODE SOURCE`, written by the supervisor
REPLACED_SIGNAL = "replaced_signal"  # the number of the signal that vmctl was to send when it sent SIGKILL
_BLANK = b" " * 32
# the signals whose default action does not end a process (signal(7))
_HARMLESS = frozenset((signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))
_HARMLESS |= {signal.SIGURG, signal.SIGWINCH}


class Outputs(NamedTuple):
    """The descriptors through which the starting process notices output of a container."""

    streams: tuple[int, ...]  # copies of the reading ends of both pipes; polled, never read
    written: int  # eventfd(2) to which the supervisor writes after each write to a log


def make_room(inst: Instance) -> None:
    """Make the logs and, still blank, the files about the end: a full disk must not prevent that they are written.

    Raises OSError.
    """
    files = {
        inst.path(EXIT_FILE): _BLANK,
        inst.path(REPLACED_SIGNAL): _BLANK,
        inst.stdout_log: b"",
        inst.stderr_log: b"",
    }
    for path, content in files.items():
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, content, 0)
        finally:
            os.close(fd)


def deliver(inst: Instance, signum: int) -> None:
    """Send a signal to the workload; what it gets is the same in each mode.

    PID 1 of a namespace does not get a signal that would end any other process: SIGKILL is sent in its place.
    """
    pid = inst.state.pid
    replaced = signum == signal.SIGKILL or bool(pid and signum not in _HARMLESS and processes.drops(pid, signum))
    if replaced:
        _note_killed(inst, signum)
    processes.send(pid, inst.state.pid_start, signal.SIGKILL if replaced else signum)


def _note_killed(inst: Instance, signum: int) -> None:
    """Record that SIGKILL is sent on account of a signal: the cause of the end is not one that the kernel found."""
    with suppress(OSError):  # the record must not prevent the end
        fd = os.open(inst.path(REPLACED_SIGNAL), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, b"%-8d" % signum, 0)
        finally:
            os.close(fd)


class ContainerWatch:
    """See vmctl.backend.Watch. Only the process that has started the container has `outputs`."""

    own_kernel = False

    def __init__(self, inst: Instance, outputs: Outputs | None = None) -> None:
        self.inst = inst
        self._outputs = outputs

    def alive(self) -> bool:
        """See Watch."""
        state = self.inst.state
        # the supervisor runs a moment longer, until it has written how the workload ended
        return processes.alive(state.pid, state.pid_start) or is_supervised(self.inst)

    def result(self) -> Exit | None:
        """See Watch."""
        try:
            with open(self.inst.path(EXIT_FILE), "rb") as file:
                found = re.fullmatch(rb"([0-9]{1,3}) (workload|signal|oom|vmctl)\n? *", file.read(64))
        except OSError:  # missing after a SIGKILL of the supervisor
            return None
        if found is None or int(found[1]) > 255:  # damaged
            return None
        return explained(self.inst, Exit(int(found[1]), found[2].decode()))

    def observe(self) -> str:
        """See Watch."""
        inst = self.inst
        if "T5" in inst.timeline.marks_ns:
            return "output"
        # bytes that the supervisor has not read yet are in our copies of the pipes, the others in its logs
        waiting = self._outputs is not None and any(select.select(self._outputs.streams, [], [], 0)[0])
        if waiting or inst.has_output():
            inst.timeline.mark("T5")
        return "started"

    def events(self, *more: int) -> Events:
        """See Watch: the first output, a write to a log, and the end of workload and supervisor."""
        from vmctl.linux.events import Events  # an attached container is not waited for

        pids = (self.inst.state.pid, self.inst.state.supervisor_pid)
        if self._outputs is None:  # another process has started it
            return Events((), more, pids, often=True)
        return Events((self._outputs.written,), (*more, *self._outputs.streams), pids)

    def settled(self) -> bool:
        """See Watch: always True, because no system boots."""
        return True


def explained(inst: Instance, result: Exit) -> Exit:
    """Return the cause of a SIGKILL: vmctl, instead of a signal that the kernel would drop, or the OOM killer.

    The latter may have killed children long before.
    """
    if result.code != 128 + signal.SIGKILL:
        return result
    with suppress(FileNotFoundError, ValueError), open(inst.path(REPLACED_SIGNAL), encoding="ascii") as file:
        return Exit(128 + int(file.read(8)), "signal")
    return Exit(result.code, "oom" if Cgroup(inst.cgroup).oom_kills() else "signal")
