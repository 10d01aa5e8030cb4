"""The start itself: what happens between T0 and the guest's first instruction, and attached until its end."""

from __future__ import annotations

import socket
from contextlib import nullcontext

from vmctl.backend import Attachment, Exit, Watch
from vmctl.errors import EXIT_VMCTL, VmctlError
from vmctl.instance import Instance, write_atomic
from vmctl.linux import processes
from vmctl.linux.stdio import signals_to
from vmm import domain, files, qemu, watch
from vmm.domain import Machine
from vmm.launcher import Launcher, Order


class GuestStart:
    """See vmctl.backend.Start: a guest that only needs to be started, and the child process that will do it."""

    def __init__(self, inst: Instance, machine: Machine, launcher: Launcher, attachment: Attachment | None) -> None:
        self.inst = inst
        self.watch: Watch = watch.GuestWatch(inst)
        self._launcher = launcher
        self._attachment = attachment
        self._stdin: socket.socket | None = None  # the host's end of the workload's standard input
        if attachment is not None:
            machine = machine._replace(stdin=(f"{files.PORT_PREFIX}stdin", files.stdin(inst)))
        self._machine = machine

    def begin(self) -> None:
        """See Start: has QEMU run the guest. Raises VmctlError with the tail of QEMU's log."""
        inst, machine = self.inst, self._machine
        xml = domain.domain_xml(machine)
        write_atomic(files.domain(inst), xml)
        try:
            granted = self._launcher.create(Order(machine.name, xml, inst.cgroup, network=inst.work.network))
        except VmctlError as error:
            error.detail = error.detail or watch.console_tail(inst)
            raise
        inst.timeline.mark("T1")
        _remember_process(inst, machine.uuid)
        _check_limits(machine, granted)
        if self._attachment is not None:
            self._stdin = _connect(files.stdin(inst))
        self._launcher.close()

    def attend(self) -> Exit:
        """See Start: copies what the workload writes until the guest is off; raises for a failed start."""
        from vmm import attend, control

        assert self._attachment is not None
        inst, streams = self.inst, self._attachment.streams
        # the signals of a terminal are for the workload if it is in the foreground there
        passing = signals_to(lambda signum: control.send(inst, signum)) if streams is None else nullcontext()
        with passing:
            attend.stay((inst.stdout_log, inst.stderr_log), streams or (0, 1, 2), self._stdin, self._going_on)
        return self.watch.result() or Exit(EXIT_VMCTL, "vmctl")

    def _going_on(self) -> bool:
        going_on = self.watch.alive()
        self.watch.observe()
        return going_on

    def close(self) -> None:
        """See Start."""
        self._launcher.close()
        if self._stdin is not None:
            self._stdin.close()

    def __enter__(self) -> GuestStart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remember_process(inst: Instance, uuid: str) -> None:
    pid = qemu.find(uuid)
    if pid is None:
        raise VmctlError(f"QEMU of {inst.name} ended at once", detail=watch.console_tail(inst))
    inst.state.pid, inst.state.pid_start = pid, processes.start_time(pid)


def _check_limits(machine: Machine, granted: dict[str, int]) -> None:
    """Raise VmctlError if the guest has less than was asked for: a limit that did not take is an error."""
    for name, wanted in (("vcpus", machine.vcpus), ("memory_bytes", machine.memory_bytes)):
        if granted[name] < wanted:
            raise VmctlError(f"the guest {machine.name} was to have {wanted} {name} and has {granted[name]}")


def _connect(path: str) -> socket.socket:
    """Connect before the guest's kernel looks at the port: to the workload, a port without a host is at its end."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection
