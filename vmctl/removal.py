"""Remove an instance: undo its journal backwards, then remove its files; also for an instance that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial

from vmctl import backends, trace
from vmctl.backend import Backend
from vmctl.errors import VmctlError
from vmctl.instances import eventlog, instance
from vmctl.instances.folder import Folder
from vmctl.instances.instance import Instance
from vmctl.journal import Journal
from vmctl.light import re
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.records import UnreadableError
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from typing import Any


class Undone(NamedTuple):
    """What is still on the host after a journal was undone."""

    failures: list[str]  # objects that could not be undone now
    left: list[str]  # objects that cannot be undone, because their entry is damaged or no backend knows it


def remove(inst: Instance, backend: Backend, *, force: bool = False) -> list[str]:
    """Undo the journal backwards and remove the directory; the caller holds the lock.

    Every entry is tried, so that an entry that fails leaves no other object behind. Then the first failure is raised as
    VmctlError, a damaged entry as UnreadableError. With `force`, return a text for each damaged entry instead.
    """
    failures, left = _undo(inst, partial(backend.undo, inst))
    if failures:
        raise VmctlError(f"{inst.name} could not be removed completely: {failures[0]}", hint="try `vmctl rm -f` again")
    if left and not force:
        raise UnreadableError(
            f"{inst.name} could not be removed completely: {left[0]}",
            hint=f"`vmctl rm -f {inst.name}` removes the rest",
        )
    inst.timeline.mark("T9")
    inst.remove_files()
    eventlog.note_removed(inst)
    if inst.state.snapshot:
        _let_go(inst.state.snapshot)
    return left


def _let_go(origin: dict[str, Any]) -> None:
    """Remove the snapshot of a clone that is gone, if it was taken for its clones only and this was the last one."""
    from vmctl.snapshots import record

    record.remove_temporary(str(origin.get("name")), str(origin.get("id")))


KEPT = ("lease", "ids", "link", "layer", "unit")  # kinds that a stopped instance needs for its next start


def end_run(inst: Instance, backend: Backend) -> None:
    """Undo what the last run has left on the host, and keep files, ids and address; the caller holds the lock.

    Raises VmctlError with the first failure.
    """
    failures, left = _undo(inst, partial(backend.undo, inst), KEPT)
    if failures or left:
        raise VmctlError(
            f"the last run of {inst.name} could not be cleared away: {[*failures, *left][0]}",
            hint=f"`vmctl rm -f {inst.name}` removes the instance",
        )
    own = os.getpid()  # of the process that starts it again: see vmctl/keeping/restart.py
    inst.journal.replace([one for one in inst.journal.entries() if one["kind"] in KEPT or one.get("pid") == own])


def close_ports(inst: Instance) -> None:
    """End the forwarder of an instance that has ended: another one may publish the same ports."""
    from vmctl.linux import processes

    for entry in inst.journal.entries():
        if entry["kind"] == "process" and entry.get("role") == "forwarder" and inst.is_of_this_boot():
            processes.end(entry["pid"], entry["start"])


def forget_names(inst: Instance) -> None:
    """Make the names of an instance that has ended unknown in its networks; the next start makes them known again."""
    if not inst.state.links:
        return
    from vmctl.net import bridge

    for entry in inst.journal.entries():
        if entry["kind"] == "link":
            with suppress(LookupError, TypeError, ValueError, AttributeError):  # damaged: `rm` reports it
                bridge.forget_names(entry)


def end_failed(inst: Instance, backend: Backend, error: BaseException, *, keep: bool | None) -> None:
    """Remove an instance whose start has failed, or end and keep it; an error whose hint names it gets another hint.

    `keep` is None if the caller's command has no --keep.
    """
    trace.gate = None  # a start step by step has ended: what is undone waits for nobody
    if keep:
        from vmctl import again

        again.keep(inst, backend, error)
        return
    _remove_failed(inst, backend, error)
    if isinstance(error, VmctlError) and inst.name in error.hint:  # it is gone
        error.hint = "" if keep is None else f"repeat it with --keep; then {error.hint.replace(inst.name, 'NAME')}"
    elif isinstance(error, VmctlError) and error.detail and keep is not None:
        error.hint = f"{error.hint}{'; ' if error.hint else ''}with --keep the instance is not removed"


def _remove_failed(inst: Instance, backend: Backend, error: BaseException) -> None:
    """Remove an instance after an error; if that fails too, the new error contains both reasons."""
    try:
        remove(inst, backend)
    except (VmctlError, OSError) as leftover:
        reason = (isinstance(error, Exception) and str(error)) or f"{inst.name} was interrupted"
        hint, detail = getattr(leftover, "hint", ""), getattr(error, "detail", "")
        raise VmctlError(f"{reason}; and {leftover}", hint=hint, detail=detail) from error


def remove_unlocked(inst: Instance, backend: Backend) -> None:
    """Remove the instance of a command that was interrupted just before `locked`; otherwise it is gone already."""
    inst.release()
    if os.path.exists(inst.directory):
        with suppress(VmctlError, OSError), inst.locked(timeout_s=1.0):
            remove(inst, backend)


def remove_unreadable(name: str) -> list[str]:
    """Remove an instance that cannot be read; return a text for each object that is left.

    Entries of the host's kinds are undone. Entries of a mode's kinds are left if the state, which names the mode, is
    damaged too, or if the mode is not installed. Raises NotFoundError.
    """
    with Folder(name, "").locked():
        home, undo = _opened(name)
        failures, left = _undo(home, undo)
        home.remove_files()
        eventlog.note_lost(name, home.id)
    return failures + left


def _opened(name: str) -> tuple[Folder, Callable[[dict[str, Any]], None] | None]:
    """Return what is left of an instance, and how to undo entries of its mode's kinds, if it is known."""
    try:
        state = instance.state_of(name)
        backend = backends.load(state.mode)
    except VmctlError:
        return Folder(name, _id_of(name)), None
    inst = Instance(name, Workload(name, ""), state)  # no backend reads the workload to undo an entry
    return inst, partial(backend.undo, inst)


def _undo(home: Folder, others: Callable[[dict[str, Any]], None] | None, kept: Collection[str] = ()) -> Undone:
    """Undo every entry that is not of a kind in `kept`, the newest first; `others` undoes the kinds of a mode."""
    from vmctl.instances.undo import UNDO

    journal = Journal(home.path("journal"))
    try:
        entries, damaged = journal.content()
    except UnreadableError as error:
        return Undone([], [str(error)])
    found = Undone([], [f"{damaged} damaged lines of its journal"] if damaged else [])
    for entry in reversed([entry for entry in entries if entry["kind"] not in kept]):
        try:
            if entry["kind"] in UNDO:
                UNDO[entry["kind"]](home, entry)
            elif others:
                others(entry)
            else:
                found.left.append(_short(entry))
        except UnreadableError as error:  # an entry of a later vmctl
            found.left.append(str(error))
        except (VmctlError, OSError) as error:
            found.failures.append(f"{_short(entry)}: {error}")
        except Exception:  # any error, for values that no vmctl has written
            found.left.append(f"the damaged entry {_short(entry)}")
    return found


def _short(entry: dict[str, Any]) -> str:
    return ascii(" ".join(f"{part}" for part in entry.values() if isinstance(part, str | int)))[1:-1][:200]


def _id_of(name: str) -> str:
    """Return the id of an instance as its journal has it, in the name of the cgroup; "" if no entry has that."""
    try:
        entries = Journal(Folder(name, "").path("journal")).entries()
    except UnreadableError:
        return ""
    cgroups = (entry["name"] for entry in entries if entry["kind"] == "cgroup" and isinstance(entry.get("name"), str))
    return next((cgroup[-8:] for cgroup in cgroups if re.fullmatch(r".*\.[0-9a-f]{8}", cgroup)), "")
