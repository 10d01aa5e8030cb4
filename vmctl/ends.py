"""Whether an instance runs, and how it has ended; the engine has these functions too."""

from __future__ import annotations

import time
from contextlib import suppress

from vmctl import backends
from vmctl.backend import Backend, Exit, HasCauses, ReportedExit
from vmctl.errors import NotFoundError, StateError, VmctlError
from vmctl.instances import instance
from vmctl.instances.folder import absent, removal_hint
from vmctl.instances.instance import Instance
from vmctl.light import signal
from vmctl.linux import processes
from vmctl.named import TYPE_CHECKING
from vmctl.records import UnreadableError

if TYPE_CHECKING:
    from typing import Literal

UNKNOWN = "unknown"  # the exit source if it is not known how a workload ended
SUSPENDED: Literal["suspended"] = "suspended"  # a status: it does not run, and can go on with its memory
ALIVE = ("running", "restarting")  # the statuses of an instance that has not ended


def status(inst: Instance, backend: Backend | None = None) -> str:
    """Return created, running, restarting, suspended, exited or failed as the kernel reports it.

    An exit is recorded when it is seen.
    """
    backend = backend or backend_of(inst)
    if inst.state.status == "running":
        if inst.is_of_this_boot() and (found := _alive(inst, backend)):
            return found
        if _is_started_again(inst):
            return status(inst, backend)
        record_end(inst, backend)
        if inst.state.exit_source != UNKNOWN or not _another_records(inst):
            save(inst)
    elif inst.state.status == "created" and not (inst.state.waiting or inst.busy()):
        inst.recall()  # the command that was starting it has finished or was killed
        return "failed" if inst.state.status == "created" else status(inst, backend)
    return "restarting" if inst.state.status == "created" and inst.state.restarts else inst.state.status


def _alive(inst: Instance, backend: Backend) -> str:
    """Return running or restarting, or "" if the instance has ended."""
    if backend.watch(inst).alive():
        return "running"
    if inst.work.restart.policy == "no":
        return ""
    from vmctl.keeping import runs

    return "restarting" if runs.between_runs(inst) else ""


def _is_started_again(inst: Instance) -> bool:
    """Return whether vmctl has started a new run since the state was read; then the state is that of the new run."""
    if inst.work.restart.policy == "no":
        return False
    before = inst.state.supervisor_pid
    inst.recall()
    return inst.state.supervisor_pid != before or inst.state.status != "running"


def _another_records(inst: Instance) -> bool:
    """Return whether the command that has run an instance in the foreground records its end, or has just done so.

    It alone knows the exit code; the record of this process would replace it.
    """
    if inst.busy():
        return True
    if instance.state_of(inst.name).status == "running":
        return False
    inst.recall()
    return True


def is_supervised(inst: Instance) -> bool:
    """Return whether an instance has a supervisor, or a recorder, that may still have output or an end to record."""
    state = inst.state
    if not processes.alive(state.supervisor_pid, state.supervisor_start):
        return False
    if inst.work.restart.policy == "no" and not state.removes:
        return True
    from vmctl.keeping import runs

    return not runs.is_over(inst)


def record_end(inst: Instance, backend: Backend) -> None:
    """Set in the state how the last run has ended; the caller saves it."""
    result = backend.watch(inst).result() or _oom_killed(inst)
    if result is None and inst.state.exit_source:  # already recorded, before a restart that did not come about
        inst.state.status = "exited"
        return
    inst.state.exit_code = result.code if result else None
    inst.state.exit_source = result.source if result else UNKNOWN
    inst.state.exit_reporter = "guest" if isinstance(result, ReportedExit) else "host"
    inst.state.status = "exited"
    if result is None and inst.is_of_this_boot() and isinstance(backend, HasCauses):
        inst.state.status, inst.state.reason = backend.cause(inst)


def _oom_killed(inst: Instance) -> Exit | None:
    """Return the end of an instance whose own process, such as QEMU, the kernel's OOM killer has ended."""
    from vmctl.linux.cgroups import Cgroup

    return Exit(128 + signal.SIGKILL, "oom") if Cgroup(inst.cgroup).oom_kills() else None


def save(inst: Instance) -> None:
    """Record how an instance ended, unless the disk is full: a record that cannot be written stops no ending.

    Raises NotFoundError if the instance has been removed: a new one of its name must not get this state.
    """
    with suppress(OSError):
        if instance.state_of(inst.name).id != inst.id:
            raise absent(inst.name)
        inst.save()


def wait(inst: Instance, timeout_s: float | None = None) -> Exit | None:
    """Return how the workload ended, or None if it is still running after `timeout_s`.

    Raises StateError, and NotFoundError for an instance that was removed, unless `lastrecord.hold` was called for it.
    """
    from vmctl.instances import lastrecord

    try:
        if not ends(inst, backend_of(inst), timeout_s):
            return None
    except NotFoundError:
        if not lastrecord.read(inst):
            raise
    if inst.state.exit_code is None:
        lastrecord.read(inst)  # it was removed while its end was read
    refuse_suspended(inst)
    if inst.state.exit_source is None:
        raise StateError(f"{inst.name} never ran", hint=f"`vmctl rm {inst.name}` removes it")
    if inst.state.exit_code is None:
        raise StateError(
            f"the exit code of {inst.name} is unknown: the process that reports it was killed",
            hint=f"`vmctl logs {inst.name}` shows its last output",
        )
    return Exit(inst.state.exit_code, inst.state.exit_source)


def refuse_suspended(inst: Instance) -> None:
    """Raise StateError for an instance that is suspended: a part of its files is in its memory."""
    if inst.state.status == SUSPENDED:
        raise StateError(f"{inst.name} is suspended", hint=f"`vmctl resume {inst.name}` lets it go on")


def ends(inst: Instance, backend: Backend, timeout_s: float | None) -> bool:
    """Wait until the workload has ended; return False if it is still running after `timeout_s`."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while status(inst, backend) in (*ALIVE, "created"):
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def backend_of(inst: Instance) -> Backend:
    """Return the backend of an instance. Raises UnreadableError if its mode is not installed."""
    try:
        return backends.load(inst.state.mode)
    except VmctlError as error:
        raise UnreadableError(f"{inst.name}: {error}", hint=removal_hint(inst.name)) from error
