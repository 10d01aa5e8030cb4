"""Requests to a running guest: a signal for its workload, and its end."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from vmctl.instances.folder import Home
from vmctl.instances.instance import Instance
from vmctl.linux import processes
from vmm import domain, files, qemu

RECORDER_S = 1.0


def send(inst: Instance, signum: int) -> None:
    """Request the guest's init to send a signal to the workload; SIGKILL kills QEMU, in any state of the guest."""
    if not processes.alive(inst.state.pid, inst.state.pid_start):
        return  # it has just powered off
    if signum == signal.SIGKILL:
        with suppress(OSError):  # a full disk must not prevent the end
            files.mark_killed(inst.directory, killed=True)  # the guest cannot report this
        end(inst)
        await_recorder(inst)
        return
    request(inst, f"signal {signum}")


def end(home: Home) -> None:
    """Kill QEMU by its pid: an embedded driver offers no other way, and a libvirtd notices the end itself."""
    qemu.end(files.pid_file(home), domain.machine_uuid(home.id))


def await_recorder(inst: Instance) -> None:
    """Wait until the recorder has copied the last words of a QEMU that is gone, for a second at most."""
    deadline = time.monotonic() + RECORDER_S
    while processes.alive(inst.state.supervisor_pid, inst.state.supervisor_start) and time.monotonic() < deadline:
        time.sleep(0.001)


def request(home: Home, line: str) -> None:
    """Write a line to the guest's control port without waiting for a reader. Raises OSError."""
    fd = os.open(files.control(home), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)
