"""Start an instance again, from the workload that was recorded and with its files; keep one whose start has failed."""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import backends, engine, pausing, removal
from vmctl.backend import Backend, Exit, ReportedExit
from vmctl.ends import SUSPENDED
from vmctl.errors import EXIT_VMCTL, VmctlError
from vmctl.instances import instance, lastrecord
from vmctl.instances.folder import removal_hint
from vmctl.instances.instance import Instance
from vmctl.linux import filetree
from vmctl.records import UnreadableError


def start(
    name: str, *, wait: bool = True, progress: engine.Progress | None = None, cold: bool = False
) -> Instance | None:
    """Start an instance that has ended and return it once it is ready; None if it runs already.

    One that is suspended goes on; with `cold` it begins anew, with its files.

    If the start fails, the instance is kept, as failed, unless it has --rm. Raises NotFoundError, UnavailableError if
    something that it needs is gone or in use, which changes nothing, and other errors of vmctl.errors.
    """
    inst, backend = _loaded(name)
    with inst.locked():
        if engine.status(inst, backend) in engine.ALIVE:
            return None
        if cold and inst.state.status == SUSPENDED:
            inst.state.status = "exited"
        _start(inst, backend, wait=wait, progress=progress)
    return inst


def _loaded(name: str) -> tuple[Instance, Backend]:
    inst = instance.load(name)
    try:
        return inst, backends.load(inst.state.mode, inst.state.options)
    except VmctlError as error:
        raise UnreadableError(f"{name}: {error}", hint=removal_hint(name)) from error


def _start(inst: Instance, backend: Backend, *, wait: bool, progress: engine.Progress | None) -> None:
    if inst.state.status == SUSPENDED:
        from vmctl import suspending

        suspending.go_on(inst, backend, wait=wait, progress=progress)
        return
    clear(inst, backend)
    lastrecord.hold(inst)  # for `start -a`: it may end before it is watched
    try:
        begin(inst, backend, wait=wait, progress=progress)
    except BaseException as error:
        if inst.state.removes:
            removal.end_failed(inst, backend, error, keep=None)
        else:
            keep(inst, backend, error)
        raise


def stays_stopped(name: str) -> bool:
    """Return whether a start at boot leaves an instance out: its user has stopped it, and its policy minds that."""
    inst = instance.load(name)
    return inst.work.restart.policy == "unless-stopped" and inst.state.stopped


def clear(inst: Instance, backend: Backend) -> None:
    """Prepare a new run of an instance that has ended. Raises UnavailableError, VmctlError."""
    removal.end_run(inst, backend)  # first: its forwarder has its ports
    if inst.state.status != SUSPENDED and os.path.lexists(inst.suspended):
        filetree.remove_tree(inst.suspended)  # of a `suspend` that was killed; the guest went on after it
    engine.check(inst.work._replace(image=inst.image), backend)


def begin(
    inst: Instance,
    backend: Backend,
    *,
    wait: bool = False,
    progress: engine.Progress | None = None,
    restarts: int = 0,
    short_runs: int = 0,
    resumes: bool = False,
) -> None:
    """Begin a new run after `clear`; the caller has the lock, and ends a run that fails.

    `restarts` and `short_runs` are those of the state. With `resumes` it goes on with what `suspend` has saved, and
    stays suspended until it runs.
    """
    inst.forget_run()
    if resumes:
        inst.state.status = SUSPENDED
    pausing.forget(inst)
    inst.state.restarts, inst.state.short_runs = restarts, short_runs
    inst.save()
    engine.bring_up(inst, backend, wait=wait, progress=progress).close()


def restart(
    name: str, timeout_s: float | None = None, *, wait: bool = True, progress: engine.Progress | None = None
) -> Instance:
    """Stop an instance, if it runs, and start it again; see `engine.stop` and `start`."""
    inst, backend = _loaded(name)
    with inst.locked():  # for both: nothing happens to it in between
        engine.end(inst, backend, timeout_s)
        _start(inst, backend, wait=wait, progress=progress)
    return inst


def keep(inst: Instance, backend: Backend, error: BaseException) -> None:
    """End what a failed start has left running and record the reason; the files of the instance stay."""
    removal.end_run(inst, backend)
    inst.state.status = "failed"
    inst.state.reason = (isinstance(error, Exception) and str(error)) or "its start was interrupted"
    inst.state.exit_code = getattr(error, "exit_code", EXIT_VMCTL)
    inst.state.exit_source = "vmctl"
    with suppress(OSError):  # a full disk
        inst.save()


def keep_ended(inst: Instance, result: Exit) -> None:
    """Record the end of an attached workload whose instance stays."""
    inst.state.exit_code, inst.state.exit_source = result
    inst.state.exit_reporter = "guest" if isinstance(result, ReportedExit) else "host"
    inst.state.status = "exited"
    inst.save()
