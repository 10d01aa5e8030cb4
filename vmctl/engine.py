"""The engine: takes a workload and a backend through the same steps, in the same order, in every mode."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from vmctl import backends, limits, removal
from vmctl.backend import Attachment, Backend, Command, Exit, HasCauses, ReportedExit, Start
from vmctl.errors import NotFoundError, StateError, VmctlError
from vmctl.instances import instance
from vmctl.instances.folder import Home, absent, removal_hint
from vmctl.instances.instance import Instance
from vmctl.light import import_module, signal
from vmctl.problems import check as check
from vmctl.problems import problems as problems
from vmctl.records import UnreadableError
from vmctl.spec.workload import Workload

UNKNOWN = "unknown"  # the exit source if it is not known how a workload ended

STARTED = "started"  # a phase: the workload runs, and is not waited for so far

Progress = Callable[[Instance, str], None]


def up(
    work: Workload,
    mode: str,
    *,
    options: Mapping[str, str] | None = None,
    wait: bool = True,
    progress: Progress | None = None,
    keep: bool = False,
) -> Instance:
    """Start a workload and return its instance once it is ready. After a failure the instance is removed.

    With `keep` it stays, as failed, to be looked into.
    """
    backend = backends.load(mode, options)
    inst = create(work, backend, held=True, options=options)
    try:
        with inst.locked():
            try:
                bring_up(inst, backend, wait=wait, progress=progress).close()
            except BaseException as error:
                removal.end_failed(inst, backend, error, keep=keep)
                raise
    except BaseException:
        if not keep:
            removal.remove_unlocked(inst, backend)
        raise
    return inst


def create(
    work: Workload, backend: Backend, *, held: bool = False, options: Mapping[str, str] | None = None
) -> Instance:
    """Check the workload and create the instance's directory; with `held`, the caller has its lock.

    `options` are those of the backend, for a later start.
    """
    if os.path.lexists(Home(work.name, "").directory):  # else the first error would be about ports of that instance
        raise instance.taken(work.name)
    check(work, backend)
    return instance.create(work, backend.mode, held=held, options=options)


def bring_up(
    inst: Instance,
    backend: Backend,
    attachment: Attachment | None = None,
    *,
    wait: bool = True,
    progress: Progress | None = None,
) -> Start:
    """Prepare and start; wait until it is ready; publish the ports. Return the start, which the caller closes.

    An attached workload is not waited for. A workload without a `ready` probe is ready once its system has booted.
    """
    if progress is not None:
        progress(inst, "preparing")
    start = backend.prepare(inst, attachment)
    try:
        inst.state.warnings += limits.beyond_host(inst.work)
        inst.state.starts += 1
        inst.save()
        inst.timeline.mark("T0")
        start.begin()
        limits.check(inst)
        inst.state.status = "running"
        inst.save()
        if progress is not None:
            progress(inst, STARTED)
        if wait and attachment is None and (inst.work.ready or not start.watch.settled()):
            from vmctl import readiness

            readiness.wait_until_ready(start.watch, progress)
            inst.save()
        if inst.work.ports:  # only now: the forwarder's own start must not slow down the workload's
            from vmctl.net import ports

            target = inst.state.address or "127.0.0.1"
            ports.publish(inst.name, inst.work.ports, target, inst.journal, inst.path("forwarder.log"))
    except BaseException:
        start.close()
        raise
    return start


def run(
    work: Workload,
    mode: str,
    *,
    options: Mapping[str, str] | None = None,
    detach_keys: bytes = b"",
    on_weakened: Callable[[str], None] | None = None,
    keep: bool = False,
) -> Exit | None:
    """Run a workload on this process's streams, remove it unless `keep` is set, and return how it ended.

    Returns None if the caller has detached from its terminal by these keys, and it runs on.
    `on_weakened` is called with each text about what makes the isolation weaker, and about limits that are too high.
    """
    attachment = Attachment(tty=work.tty, detach_keys=detach_keys)
    with running(work, backends.load(mode, options), attachment, keep=keep, options=options) as start:
        if on_weakened:
            for text in (*start.inst.state.weakened, *limits.beyond_host(work)):
                on_weakened(text)
        result = start.attend()
        if start.inst.left:
            return None
        if keep:
            from vmctl import again

            again.keep_ended(start.inst, result)
        return result


@contextmanager
def running(
    work: Workload,
    backend: Backend,
    attachment: Attachment | None = None,
    *,
    wait: bool = True,
    keep: bool = False,
    options: Mapping[str, str] | None = None,
) -> Iterator[Start]:
    """Yield the start of a running instance.

    The instance is removed at the end of the block, also after an error, unless `keep` is set.
    """
    inst = create(work, backend, held=True, options=options)
    try:
        with inst.locked():
            try:
                with bring_up(inst, backend, attachment, wait=wait) as start:
                    yield start
                    keep = keep or inst.left
            except BaseException as error:
                removal.end_failed(inst, backend, error, keep=keep)
                raise
            if not keep:
                removal.remove(inst, backend)
    finally:
        if not keep:
            removal.remove_unlocked(inst, backend)


def status(inst: Instance, backend: Backend | None = None) -> str:
    """Return created, running, exited or failed as the kernel reports it; the exit is recorded when first seen."""
    backend = backend or _backend(inst)
    if inst.state.status == "running":
        watch = backend.watch(inst)
        if inst.is_of_this_boot() and watch.alive():
            return "running"
        result = watch.result() or _oom_killed(inst)
        inst.state.exit_code = result.code if result else None
        inst.state.exit_source = result.source if result else UNKNOWN
        inst.state.exit_reporter = "guest" if isinstance(result, ReportedExit) else "host"
        inst.state.status = "exited"
        if result is None and inst.is_of_this_boot() and isinstance(backend, HasCauses):
            inst.state.status, inst.state.reason = backend.cause(inst)
        _save(inst)
    elif inst.state.status == "created" and not (inst.state.waiting or inst.busy()):
        inst.recall()  # the command that was starting it has finished or was killed
        return "failed" if inst.state.status == "created" else status(inst, backend)
    return inst.state.status


def _oom_killed(inst: Instance) -> Exit | None:
    """Return the end of an instance whose own process, such as QEMU, the kernel's OOM killer has ended."""
    from vmctl.linux.cgroups import Cgroup

    return Exit(128 + signal.SIGKILL, "oom") if Cgroup(inst.cgroup).oom_kills() else None


def _save(inst: Instance) -> None:
    """Record how an instance ended, unless the disk is full: a record that cannot be written stops no ending.

    Raises NotFoundError if the instance has been removed: a new one of its name must not get this state.
    """
    with suppress(OSError):
        if instance.state_of(inst.name).id != inst.id:
            raise absent(inst.name)
        inst.save()


def wait(inst: Instance, timeout_s: float | None = None) -> Exit | None:
    """Return how the workload ended, or None if it is still running after `timeout_s`. Raises StateError."""
    if not _ends(inst, _backend(inst), timeout_s):
        return None
    if inst.state.exit_source is None:
        raise StateError(f"{inst.name} never ran", hint=f"`vmctl rm {inst.name}` removes it")
    if inst.state.exit_code is None:
        raise StateError(
            f"the exit code of {inst.name} is unknown: the process that reports it was killed",
            hint=f"`vmctl logs {inst.name}` shows its last output",
        )
    return Exit(inst.state.exit_code, inst.state.exit_source)


def _ends(inst: Instance, backend: Backend, timeout_s: float | None) -> bool:
    """Wait until the workload has ended; return False if it is still running after `timeout_s`."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while status(inst, backend) in ("running", "created"):
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def stop(inst: Instance, timeout_s: float | None = None, signum: int | None = None) -> None:
    """Send a signal to the workload, and SIGKILL after `timeout_s`; the defaults are the instance's."""
    backend = _backend(inst)
    with inst.locked():
        if status(inst, backend) == "running":
            _stop(inst, backend, timeout_s, signum)
        removal.close_ports(inst)
        removal.forget_names(inst)


def _stop(inst: Instance, backend: Backend, timeout_s: float | None, signum: int | None) -> None:
    inst.timeline.mark("T7")
    _unpause(inst, backend)
    backend.signal(inst, inst.state.stop_signal if signum is None else signum)
    if not _ends(inst, backend, inst.state.stop_s if timeout_s is None else timeout_s):
        backend.signal(inst, signal.SIGKILL)
        if not _ends(inst, backend, 30.0):
            raise VmctlError(f"{inst.name} is still running after SIGKILL", hint="`dmesg` may show why")
    inst.timeline.mark("T8")
    _save(inst)


def kill(inst: Instance, signum: int) -> None:
    """Send a signal to the workload. Raises StateError if it is not running, or is paused, except for SIGKILL."""
    backend = _running(inst, "`vmctl ps` lists running instances", paused=signum == signal.SIGKILL)
    backend.signal(inst, signum)
    _unpause(inst, backend)


def exec_command(inst: Instance, command: Command) -> int:
    """Run another command in a running instance, on this process's streams, and return its exit code."""
    return _running(inst, f"`vmctl logs {inst.name}` shows its last output").exec(inst, command)


def _running(inst: Instance, hint: str, *, paused: bool = False) -> Backend:
    """Return the backend of an instance that runs. Raises StateError if it does not, or is paused unless `paused`."""
    backend = _backend(inst)
    if status(inst, backend) != "running":
        raise StateError(f"{inst.name} is not running", hint=hint)
    if inst.is_paused() and not paused:
        raise StateError(f"{inst.name} is paused", hint=f"`vmctl unpause {inst.name}` lets it go on")
    return backend


def _unpause(inst: Instance, backend: Backend) -> None:
    """Let an instance go on that is to end; a frozen process would get no signal."""
    if inst.is_paused():
        import_module("vmctl.pausing").release(inst, backend)


def rm(name: str, *, force: bool = False) -> list[str]:
    """Remove an instance; one that runs or cannot be read only with `force`.

    Returns a text for each object that is left on the host: none, unless the instance or its journal cannot be read.
    Raises NotFoundError, StateError, UnreadableError.
    """
    try:
        inst = instance.load(name)
        backend = _backend(inst)
    except UnreadableError as error:
        if force or isinstance(error, instance.LostError):
            return removal.remove_unreadable(name)
        error.hint = removal_hint(name)
        raise
    if not force:
        _refuse_running(inst, backend)
    with inst.locked():
        if not force:  # the command that had the lock may have started it
            _refuse_running(inst, backend)
        return removal.remove(inst, backend, force=force)


def _refuse_running(inst: Instance, backend: Backend) -> None:
    if status(inst, backend) == "running":
        raise StateError(f"{inst.name} is running", hint=f"`vmctl stop {inst.name}`, or `vmctl rm -f {inst.name}`")


def down(name: str, timeout_s: float | None = None) -> bool:
    """Stop and remove an instance; return False if it does not exist. Raises UnreadableError."""
    instance.remove_unfinished()
    try:
        inst = instance.load(name)
        stop(inst, timeout_s)
        with inst.locked():
            removal.remove(inst, _backend(inst))
    except NotFoundError:
        return False
    except instance.LostError:
        removal.remove_unreadable(name)
    except UnreadableError as error:
        error.hint = removal_hint(name)
        raise
    return True


def _backend(inst: Instance) -> Backend:
    """Return the backend of an instance. Raises UnreadableError if its mode is not installed."""
    try:
        return backends.load(inst.state.mode)
    except VmctlError as error:
        raise UnreadableError(f"{inst.name}: {error}", hint=removal_hint(inst.name)) from error
