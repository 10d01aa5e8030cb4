"""Suspend instances to the disk, and let them go on later, also after a reboot of the host.

`pausing.py` keeps an instance in memory; here its processes end, and what they have in memory is in its folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from vmctl import again, backends, ends, engine, pausing, problems, removal
from vmctl.backend import Backend
from vmctl.ends import SUSPENDED
from vmctl.errors import StateError, UnavailableError
from vmctl.instances import eventlog, freezer
from vmctl.instances.instance import Instance
from vmctl.linux import filetree
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vmctl.backend import Problem


class HasSuspend:
    """The ability to save the memory of a running instance in `inst.suspended`, and to go on with it.

    `Backend.prepare` of an instance with that folder returns a start that goes on with it.
    """

    ability = "suspend an instance"

    def suspend_problems(self, inst: Instance) -> list[Problem]:
        """Return why an instance that runs cannot be suspended; nothing is changed."""
        raise NotImplementedError

    def suspend(self, inst: Instance, recorded: Callable[[], None]) -> int:
        """Save the memory, call `recorded`, end the instance, and return how many bytes were saved.

        If anything fails before its end, it goes on and nothing is left. Raises VmctlError, OSError.
        """
        raise NotImplementedError

    def check_suspended(self, inst: Instance) -> None:
        """Raise VmctlError if it cannot go on here, with a hint that can be typed."""
        raise NotImplementedError

    def is_suspended(self, inst: Instance) -> bool:
        """Return whether nothing has used up what was saved."""
        raise NotImplementedError


class Suspended(NamedTuple):
    """What it has cost to suspend an instance."""

    took_s: float
    size_bytes: int  # of what is on the disk


def suspend(inst: Instance) -> Suspended:
    """Suspend an instance that runs. Raises StateError if it does not, UnavailableError if it cannot be, VmctlError."""
    backend = backends.load(inst.state.mode, inst.state.options)
    able = _able(inst, backend)
    begun_s = time.monotonic()
    with inst.locked(), freezer.locked(inst):
        if engine.status(inst, backend) != "running":
            ends.refuse_suspended(inst)
            raise StateError(f"{inst.name} is not running", hint="`vmctl ps` lists running instances")
        if inst.is_paused():
            raise StateError(
                f"{inst.name} is paused, and has to stop its workload itself", hint=f"`vmctl unpause {inst.name}` first"
            )
        if inst.state.removes:
            raise StateError(f"{inst.name} is removed when it has ended (--rm)", hint="start it without --rm")
        problems.refuse(f"{inst.name} cannot be suspended", able.suspend_problems(inst))
        with pausing.noted(inst):  # a command that is killed here leaves an instance that can be unpaused
            _suspend(inst, able)
    eventlog.note(inst, "suspend")
    removal.close_ports(inst)
    removal.forget_names(inst)
    return Suspended(time.monotonic() - begun_s, filetree.allocated_bytes(inst.suspended))


def _suspend(inst: Instance, able: HasSuspend) -> None:
    before = inst.state.status

    def recorded() -> None:
        inst.state.status = SUSPENDED
        inst.save()
        if inst.work.restart.policy != "no":
            from vmctl.keeping import runs

            runs.forbid(inst)

    try:
        able.suspend(inst, recorded)
    except BaseException:
        if inst.state.status != before:
            inst.state.status = before
            with suppress(OSError):
                inst.save()
        raise


def _able(inst: Instance, backend: Backend) -> HasSuspend:
    if not isinstance(backend, HasSuspend):
        raise UnavailableError(
            f"mode {backend.mode} cannot suspend an instance: vmctl does not save the state of processes (CRIU)",
            hint=f"`vmctl pause {inst.name}` stops it where it is, in memory",
        )
    return backend


def resume(inst: Instance, *, wait: bool = True, progress: engine.Progress | None = None) -> None:
    """Let a suspended instance go on, and return once it is ready.

    If it cannot, it stays suspended. Raises StateError if it is not suspended, UnreadableError if what was saved is
    damaged, UnavailableError if it does not fit this host, and the errors of a start.
    """
    backend = backends.load(inst.state.mode, inst.state.options)
    with inst.locked():
        if (found := engine.status(inst, backend)) != SUSPENDED:
            hint = f"`vmctl start {inst.name}` starts it"
            if found == "running":
                found, hint = ("paused", f"vmctl unpause {inst.name}") if inst.is_paused() else (found, "")
            raise StateError(f"{inst.name} is {found}, and not suspended", hint=hint)
        go_on(inst, backend, wait=wait, progress=progress)


def go_on(inst: Instance, backend: Backend, *, wait: bool, progress: engine.Progress | None) -> None:
    """Do what `resume` does; the caller has the lock, and the instance is suspended."""
    able = _able(inst, backend)
    able.check_suspended(inst)
    again.clear(inst, backend)
    state, timeline = inst.state, inst.timeline
    was_ready = inst.work.ready is not None and inst.work.ready.log is not None  # it has written that before
    try:
        again.begin(
            inst,
            backend,
            wait=wait and not was_ready,
            progress=progress,
            restarts=state.restarts,
            short_runs=state.short_runs,
            resumes=True,
        )
    except BaseException as error:
        if not able.is_suspended(inst):  # it went on, and then something else failed
            again.keep(inst, backend, error)
            raise
        removal.end_run(inst, backend)
        inst.state, inst.timeline = state, timeline
        with suppress(OSError):
            inst.save()
        raise
