"""The engine: takes a workload and a backend through the same steps, in the same order, in every mode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from vmctl import backends, limits, removal
from vmctl.backend import Attachment, Backend, Command, Exit, Start
from vmctl.ends import ALIVE as ALIVE
from vmctl.ends import UNKNOWN as UNKNOWN
from vmctl.ends import backend_of, ends, refuse_suspended, save
from vmctl.ends import record_end as record_end
from vmctl.ends import status as status
from vmctl.ends import wait as wait
from vmctl.errors import BeginAgainError, NotFoundError, StateError, UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.instances.folder import Home, removal_hint
from vmctl.instances.instance import Instance
from vmctl.light import import_module, signal
from vmctl.named import TYPE_CHECKING
from vmctl.problems import check as check
from vmctl.problems import problems as problems
from vmctl.records import UnreadableError
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from typing import Any

STARTED = "started"  # a phase: the workload runs, and is not waited for so far
ATTENDED = "attended"  # a phase: the caller's streams are the workload's from now on

Progress = Callable[[Instance, str], None]


def up(
    work: Workload,
    mode: str,
    *,
    options: Mapping[str, str] | None = None,
    wait: bool = True,
    progress: Progress | None = None,
    keep: bool = False,
    state: Mapping[str, Any] = {},
) -> Instance:
    """Start a workload and return its instance once it is ready. After a failure the instance is removed.

    With `keep` it stays, as failed, to be looked into. `state`: see `create`.
    """
    backend = backends.load(mode, options)
    inst = create(work, backend, held=True, options=options, state=state)
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
    work: Workload,
    backend: Backend,
    *,
    held: bool = False,
    options: Mapping[str, str] | None = None,
    state: Mapping[str, Any] = {},
) -> Instance:
    """Check the workload and create the instance's directory; with `held`, the caller has its lock.

    `options` are those of the backend, for a later start. `state` are values that are known before the start: of a
    clone its snapshot, and the digest of its image, whose name may be that of another one by now.
    """
    if os.path.lexists(Home(work.name, "").directory):  # else the first error would be about ports of that instance
        raise instance.taken(work.name)
    check(work._replace(image=state.get("image_digest", work.image)), backend)
    return instance.create(work, backend.mode, held=held, options=options, state=state)


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
    inst.timeline.mark("begun")
    if progress is not None:
        inst.timeline.marked = lambda: progress(inst, "preparing")
        inst.timeline.marked()
    start = backend.prepare(inst, attachment)
    inst.timeline.marked = None  # nothing is shown while the start is timed
    try:
        inst.state.warnings += limits.beyond_host(inst.work)
        inst.state.starts += 1
        inst.save()
        inst.timeline.mark("T0")
        try:
            start.begin()
        except BeginAgainError as error:
            start.close()
            start = _begun_again(inst, backend, attachment, error)
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
            from vmctl.instances import published
            from vmctl.net import ports

            target = inst.state.address or "127.0.0.1"
            opened = ports.publish(inst.name, inst.work.ports, target, inst.journal, inst.path("forwarder.log"))
            if opened != list(inst.work.ports):
                published.record(inst, opened)
                inst.save()
    except BaseException:
        start.close()
        raise
    return start


def _begun_again(inst: Instance, backend: Backend, attachment: Attachment | None, error: VmctlError) -> Start:
    """Begin the same start once more, without what could not be used; it is a warning then."""
    removal.end_run(inst, backend)
    start = backend.prepare(inst, attachment)
    try:
        inst.state.warnings.append(str(error))
        start.begin()
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
    progress: Progress | None = None,
    state: Mapping[str, Any] = {},
) -> Exit | None:
    """Run a workload on this process's streams, remove it unless `keep` is set, and return how it ended.

    Returns None if the caller has detached from its terminal by these keys, and it runs on. `state`: see `create`.
    `on_weakened` is called with each text about what makes the isolation weaker, and about limits that are too high.
    """
    attachment = Attachment(tty=work.tty, detach_keys=detach_keys)
    with running(
        work, backends.load(mode, options), attachment, keep=keep, options=options, progress=progress, state=state
    ) as start:
        if on_weakened:
            for text in (*start.inst.state.weakened, *limits.beyond_host(work)):
                on_weakened(text)
        if progress is not None and not start.watch.settled():
            import_module("vmctl.readiness").wait_until_settled(start.watch, progress)
        if progress is not None:
            progress(start.inst, ATTENDED)
        result = start.attend()
        if start.inst.left:
            return None
        start.inst.state.exit_code, start.inst.state.exit_source = result  # for the log of events
        if keep:
            from vmctl import again

            again.keep_ended(start.inst, result)
        return result


def _refuse_attached(work: Workload) -> None:
    """Raise UnavailableError for what needs a supervisor, which a workload in the foreground has not."""
    policy, check = work.restart.policy, work.health
    if policy != "no" or (check and not check.disable):
        what = f"restart: {policy}" if policy != "no" else "health"
        raise UnavailableError(f"{what} is for instances in the background", hint="use -d, or `vmctl up`")


@contextmanager
def running(
    work: Workload,
    backend: Backend,
    attachment: Attachment | None = None,
    *,
    wait: bool = True,
    keep: bool | None = None,
    options: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    state: Mapping[str, Any] = {},
) -> Iterator[Start]:
    """Yield the start of a running instance.

    The instance is removed at the end of the block, also after an error, unless `keep` is set. It is None if the
    caller's command has no --keep, so that no hint names it.
    """
    if attachment:
        _refuse_attached(work)
    inst = create(work, backend, held=True, options=options, state=state)
    try:
        with inst.locked():
            try:
                with bring_up(inst, backend, attachment, wait=wait, progress=progress) as start:
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


def stop(inst: Instance, timeout_s: float | None = None, signum: int | None = None) -> None:
    """Send a signal to the workload, and SIGKILL after `timeout_s`; the defaults are the instance's."""
    backend = backend_of(inst)
    with inst.locked():
        end(inst, backend, timeout_s, signum)


def end(inst: Instance, backend: Backend, timeout_s: float | None = None, signum: int | None = None) -> None:
    """Do what `stop` does; the caller has the lock."""
    found = status(inst, backend)
    _forbid_restart(inst)
    if found in ALIVE:
        _stop(inst, backend, timeout_s, signum)
    removal.close_ports(inst)
    removal.forget_names(inst)


def _forbid_restart(inst: Instance) -> None:
    """End the restarts of an instance and save that its user wants it to end; the caller has the lock."""
    if inst.work.restart.policy != "no":
        from vmctl.keeping import runs

        runs.forbid(inst)
        save(inst)


def _stop(inst: Instance, backend: Backend, timeout_s: float | None, signum: int | None) -> None:
    inst.timeline.mark("T7")
    _unpause(inst, backend)
    backend.signal(inst, inst.state.stop_signal if signum is None else signum)
    if not ends(inst, backend, inst.state.stop_s if timeout_s is None else timeout_s):
        backend.signal(inst, signal.SIGKILL)
        if not ends(inst, backend, 30.0):
            raise VmctlError(f"{inst.name} is still running after SIGKILL", hint="`dmesg` may show why")
    inst.timeline.mark("T8")
    save(inst)


def kill(inst: Instance, signum: int) -> None:
    """Send a signal to the workload. Raises StateError if it is not running, or is paused, except for SIGKILL."""
    if inst.work.restart.policy != "no" and signum in (signal.SIGKILL, inst.state.stop_signal):
        with inst.locked():
            found = status(inst)
            _forbid_restart(inst)
        if found == "restarting":
            return
    backend = _running(inst, "`vmctl ps` lists running instances", paused=signum == signal.SIGKILL)
    backend.signal(inst, signum)
    _unpause(inst, backend)


def exec_command(inst: Instance, command: Command) -> int:
    """Run another command in a running instance, on this process's streams, and return its exit code."""
    return _running(inst, f"`vmctl logs {inst.name}` shows its last output").exec(inst, command)


def _running(inst: Instance, hint: str, *, paused: bool = False) -> Backend:
    """Return the backend of an instance that runs. Raises StateError if it does not, or is paused unless `paused`."""
    backend = backend_of(inst)
    if status(inst, backend) != "running":
        refuse_suspended(inst)
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
        backend = backend_of(inst)
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
    if (found := status(inst, backend)) in ALIVE:
        raise StateError(f"{inst.name} is {found}", hint=f"`vmctl stop {inst.name}`, or `vmctl rm -f {inst.name}`")


def down(name: str, timeout_s: float | None = None) -> bool:
    """Stop and remove an instance; return False if it does not exist. Raises UnreadableError."""
    instance.remove_unfinished()
    try:
        inst = instance.load(name)
        backend = backend_of(inst)
        with inst.locked():  # for both: one with --rm is removed as soon as it has ended and nobody has the lock
            end(inst, backend, timeout_s)
            removal.remove(inst, backend)
    except NotFoundError:
        return False
    except instance.LostError:
        removal.remove_unreadable(name)
    except UnreadableError as error:
        error.hint = removal_hint(name)
        raise
    return True
