"""The start itself: what happens between T0 and the guest's first instruction."""

from __future__ import annotations

import socket

from vmctl.errors import VmctlError
from vmctl.instance import Instance, write_atomic
from vmctl.linux import processes
from vmm import domain, files, qemu, watch
from vmm.launcher import Order
from vmm.preparation import Prepared


def start(inst: Instance, prepared: Prepared, *, attached: bool) -> socket.socket | None:
    """Have QEMU run the prepared guest; return the host's end of its standard input if `attached`.

    Marks T1, sets `inst.state.pid`. Raises VmctlError with the tail of QEMU's log.
    """
    machine = prepared.machine
    if attached:
        machine = machine._replace(stdin=(f"{files.PORT_PREFIX}stdin", files.stdin(inst)))
    xml = domain.domain_xml(machine)
    write_atomic(files.domain(inst), xml)
    try:
        granted = prepared.launcher.create(Order(machine.name, xml, inst.cgroup, network=inst.work.network))
    except VmctlError as error:
        error.detail = error.detail or watch.console_tail(inst)
        raise
    inst.timeline.mark("T1")
    _remember_process(inst, machine.uuid)
    _check_limits(machine, granted)
    return _connect(files.stdin(inst)) if attached else None


def _remember_process(inst: Instance, uuid: str) -> None:
    pid = qemu.find(uuid)
    if pid is None:
        raise VmctlError(f"QEMU of {inst.name} ended at once", detail=watch.console_tail(inst))
    inst.state.pid, inst.state.pid_start = pid, processes.start_time(pid)


def _check_limits(machine: domain.Machine, granted: dict[str, int]) -> None:
    """What was asked for must be what the guest has: a limit that did not take is an error."""
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
