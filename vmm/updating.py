"""Change the limits of a running guest: the size of its balloon, QEMU's quota, and the workload's group inside."""

from __future__ import annotations

import time

from vmctl.errors import StateError, UnavailableError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size
from vmctl.spec.workload import Resources
from vmm import domain, inside, monitor, preparation

if TYPE_CHECKING:
    from typing import Any

BALLOON_S = 60.0
LEFT_BYTES = 16 * 1024**2  # must be free inside after the balloon has taken its part
_BALLOON_STEP = 4096
_AT_START = "`vmctl stop NAME`, `vmctl update ... NAME`, `vmctl start NAME` starts it with that"


def update(inst: Instance, wanted: Resources) -> dict[str, Any]:
    """See HasUpdate; everything is checked before anything is changed."""
    if inst.is_paused():
        raise StateError(f"{inst.name} is paused", hint=f"`vmctl unpause {inst.name}` lets it go on")
    hint = _AT_START.replace("NAME", inst.name)
    if wanted.cpus is not None:
        _check_cpus(inst, wanted.cpus, hint)
    if wanted.memory_bytes is not None:
        _check_memory(inst, wanted.memory_bytes, hint)
    if wanted.pids is not None and inst.state.limits.get("pids") is None:
        raise UnavailableError(f"{inst.name} has no command whose processes could be counted", hint="leave out --pids")
    granted: dict[str, Any] = {}
    if wanted.cpus is not None:
        Cgroup(inst.cgroup).set(Limits(cpus=wanted.cpus))
        granted["cpus"] = Cgroup(inst.cgroup).granted().cpus
    if wanted.memory_bytes is not None:
        granted["memory_bytes"] = _inflate(inst, wanted.memory_bytes)
    if wanted.pids is not None:
        granted["pids"] = inside.limit_pids(inst, wanted.pids)
    return granted


def _check_cpus(inst: Instance, cpus: float, hint: str) -> None:
    booted = min(domain.vcpus(inst.work.resources.cpus), preparation.host_cpus())
    booted = inst.state.own.get("vcpus", booted)
    if cpus > booted:
        raise UnavailableError(
            f"{inst.name} was booted with {booted} virtual processors, fewer than {cpus:g}", hint=hint
        )


def _check_memory(inst: Instance, memory_bytes: int, hint: str) -> None:
    booted = inst.state.own.get("memory_bytes", 0)
    if memory_bytes > booted:
        raise UnavailableError(
            f"{inst.name} was booted with {format_size(booted)} of memory, less than {format_size(memory_bytes)}",
            hint=hint,
        )
    if not inst.state.own.get("balloon", True):
        raise UnavailableError(
            f"{inst.name} has no memory balloon, because its memory can be saved (`warm`)", hint=hint
        )
    inside_now = inside.memory_now(inst, BALLOON_S)
    taken = int(monitor.ask(inst, "query-balloon")["actual"]) - memory_bytes
    if taken > 0 and inside_now and inside_now["available_bytes"] - taken < LEFT_BYTES:
        raise StateError(
            f"{inst.name} uses {format_size(inside_now['memory_bytes'])} of memory inside, and "
            f"{format_size(taken)} less would leave nothing free",
            hint="a smaller guest would kill its processes",
        )


def _inflate(inst: Instance, memory_bytes: int) -> int:
    """Ask the guest's balloon driver for a size, wait until it has that, and return it. Raises VmctlError."""
    memory_bytes -= memory_bytes % _BALLOON_STEP
    monitor.ask(inst, "balloon", value=memory_bytes)
    deadline = time.monotonic() + BALLOON_S
    while (actual := int(monitor.ask(inst, "query-balloon")["actual"])) != memory_bytes:
        if time.monotonic() > deadline:
            raise VmctlError(
                f"the guest {inst.name} has {format_size(actual)} and did not get to {format_size(memory_bytes)}",
                hint="its kernel needs the module virtio_balloon",
            )
        time.sleep(0.05)
    return actual
