"""The start itself: the steps from T0 to the guest's first instruction, and if attached, until the guest's end."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack

from vmctl import trace
from vmctl.backend import Attachment, Exit, Watch
from vmctl.errors import EXIT_VMCTL, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import processes
from vmctl.linux.cgroups import Cgroup
from vmctl.linux.events import LOOK_S
from vmctl.linux.filetree import write_atomic
from vmctl.linux.stdio import signals_to
from vmctl.named import TYPE_CHECKING
from vmm import boot, control, disk, domain, files, qemu, watch
from vmm.confinement import Cell
from vmm.domain import Machine
from vmm.launcher import Launcher, StartRequest

if TYPE_CHECKING:
    from typing import Any


class GuestStart:
    """See vmctl.backend.Start: a prepared guest, and the child process that can start it."""

    _stopped = False  # whether its processors wait for `cont` of the monitor

    def __init__(
        self, inst: Instance, machine: Machine, cell: Cell | None, launcher: Launcher, attachment: Attachment | None
    ) -> None:
        self.inst = inst
        self.watch: Watch = watch.GuestWatch(inst)
        self._cell = cell
        self._launcher = launcher
        self._attachment = attachment
        self._passes = False  # whether signals to this process are passed on
        self._stdin: socket.socket | None = None  # the host's end of the workload's standard input
        self._caller: socket.socket | None = None  # of an attached workload with a terminal
        if attachment is not None:
            machine = machine._replace(stdin=(f"{files.PORT_PREFIX}stdin", files.stdin(inst)))
        self._machine = machine

    def begin(self) -> None:
        """See Start: starts QEMU with the guest. Raises VmctlError with the last lines of QEMU's log."""
        inst, machine = self.inst, self._machine
        xml = domain.domain_xml(machine)
        write_atomic(files.domain(inst), xml)
        try:
            networks = [one.name for one in inst.work.joined()]
            request = StartRequest(machine.name, xml, inst.cgroup, networks[0] if networks else "none", self._cell)
            request = request._replace(paused=self._stopped or bool(machine.ram) or machine.resumes)
            actual = self._launcher.create(request)
        except VmctlError as error:
            error.detail = error.detail or watch.qemu_tail(inst)
            raise
        inst.timeline.mark("T1")
        inst.timeline.mark("qemu")
        _remember_process(inst, machine.uuid)
        _check_limits(machine, actual)
        inst.state.limits = _limits(inst, actual)
        if inst.work.tty or inst.work.stdin_open:
            self._connect_recorder()
        elif self._attachment is not None:
            self._stdin = _connect(files.stdin(inst))
        self._launcher.close()

    def _connect_recorder(self) -> None:
        """Wait until the recorder has the workload's input, as its owner if it is attached with its terminal."""
        from vmctl.attach import front

        caller = front.connect(self.inst.run_dir)
        caller.recv(1, socket.MSG_PEEK)  # it greets when it has the input
        if self._attachment is not None and self._attachment.tty:
            self._caller = caller
        else:
            caller.close()

    def attend(self) -> Exit:
        """See Start: copies the workload's output until the guest has powered off; raises if the start fails."""
        from vmm import attend

        assert self._attachment is not None
        if self._caller is not None:
            return self._converse(self._caller)
        inst, streams = self.inst, self._attachment.streams
        with ExitStack() as passing, self.watch.events() as happened:

            def more() -> bool:
                running = self._is_running()
                if streams is None and not self._passes and watch.takes_signals(inst):
                    # if the workload is in the foreground of a terminal, the terminal's signals are for it; while the
                    # guest boots they end this command
                    passing.enter_context(signals_to(self._pass_on))
                    self._passes = True
                return running

            attend.stay((inst.stdout_log, inst.stderr_log), streams or (0, 1, 2), self._stdin, more, happened)
        return self.watch.result() or Exit(EXIT_VMCTL, "vmctl")

    def _converse(self, caller: socket.socket) -> Exit:
        """Connect the workload's terminal with ours when the workload runs: until then Ctrl-C ends this command."""
        from vmctl.attach import front

        assert self._attachment is not None
        with self.watch.events() as happened:
            while self._is_running() and not watch.takes_signals(self.inst):
                happened.wait(LOOK_S)
        return front.own(self.watch, caller, self._attachment, self._pass_on)

    def _pass_on(self, signum: int) -> None:
        """Send a signal that this process has got to the workload; SIGTERM is the request to stop."""
        control.send(self.inst, self.inst.state.stop_signal if signum == signal.SIGTERM else signum)

    def _is_running(self) -> bool:
        running = self.watch.alive()
        self.watch.observe()
        return running

    def close(self) -> None:
        """See Start."""
        self._launcher.close()
        for connection in filter(None, (self._stdin, self._caller)):
            connection.close()

    def __enter__(self) -> GuestStart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remember_process(inst: Instance, uuid: str) -> None:
    pid = qemu.find(uuid)
    if pid is None:
        raise VmctlError(f"QEMU of {inst.name} exited at once", detail=watch.qemu_tail(inst))
    inst.state.pid, inst.state.pid_start = pid, processes.start_time(pid)
    if trace.on:
        from vmctl.linux import commands

        trace.step(commands.join(processes.command(pid)), f"QEMU, executed by libvirt as process {pid}")


def _check_limits(machine: Machine, actual: dict[str, int]) -> None:
    """Raise VmctlError if the guest has less than was requested."""
    for name, wanted in (("vcpus", machine.vcpus), ("memory_bytes", machine.memory_bytes)):
        if actual[name] < wanted:
            raise VmctlError(f"the guest {machine.name} has {actual[name]} {name} instead of {wanted}")


def _limits(inst: Instance, actual: dict[str, int]) -> dict[str, Any]:
    """Return the limits in effect, with the keys of `State.limits`."""
    return {
        "cpus": Cgroup(inst.cgroup).granted().cpus or float(actual["vcpus"]),
        "memory_bytes": actual["memory_bytes"],
        "pids": inst.state.limits.get("pids"),
        "disk_bytes": disk.size_bytes(files.disk(inst), raw=inst.state.boot != boot.DISK),
        "log_bytes": None,  # QEMU's limit is for all of its files
    }


def _connect(path: str) -> socket.socket:
    """Connect to the port's socket, before the guest's kernel opens it: an unconnected port reads as end of file."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection
