"""Pause instances and let them go on, in each mode: a container is frozen, the processors of a guest are stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import backends, ends, engine
from vmctl.backend import Backend, HasPause
from vmctl.errors import StateError, VmctlError
from vmctl.instances import eventlog, freezer
from vmctl.instances.instance import Instance


def pause(inst: Instance) -> None:
    """Pause an instance. Raises StateError if it does not run or is paused, UnavailableError, VmctlError."""
    backend, able = _backend(inst)
    with freezer.locked(inst):
        if engine.status(inst, backend) != "running":
            ends.refuse_suspended(inst)
            raise StateError(f"{inst.name} is not running", hint="`vmctl ps` lists running instances")
        if inst.is_paused():
            raise StateError(f"{inst.name} is paused already", hint=f"`vmctl unpause {inst.name}` lets it go on")
        _note(inst, "p")  # first: a command that is killed here leaves an instance that can be unpaused
        try:
            able.pause(inst)
        except BaseException:
            _note(inst, "")
            raise
        eventlog.note(inst, "pause")


def unpause(inst: Instance) -> None:
    """Let a paused instance go on. Raises StateError if it is not paused, VmctlError."""
    backend, able = _backend(inst)
    with freezer.locked(inst):
        if engine.status(inst, backend) != "running" or not inst.is_paused():
            raise StateError(f"{inst.name} is not paused", hint="`vmctl ps` shows the status of each instance")
        able.resume(inst)
        _note(inst, "")
        eventlog.note(inst, "unpause")


def release(inst: Instance, backend: Backend) -> None:
    """Let a paused instance go on that is to end or has ended. Raises VmctlError if it runs and cannot be resumed."""
    with freezer.locked(inst):
        try:
            if isinstance(backend, HasPause):
                backend.resume(inst)
        except (VmctlError, OSError):
            if engine.status(inst, backend) == "running":
                raise
        _note(inst, "")
        eventlog.note(inst, "unpause")


@contextmanager
def noted(inst: Instance) -> Iterator[None]:
    """Count an instance as paused in this block: if this process is killed, `unpause` lets it go on.

    The caller has the lock of freezing.
    """
    _note(inst, "p")
    try:
        yield
    finally:
        _note(inst, "")


def forget(inst: Instance) -> None:
    """Forget that an instance was paused when it ended."""
    with suppress(FileNotFoundError):
        os.truncate(inst.path(freezer.PAUSED), 0)


def _backend(inst: Instance) -> tuple[Backend, HasPause]:
    backend = backends.load(inst.state.mode, inst.state.options)
    return backend, backends.ability(backend, HasPause)


def _note(inst: Instance, text: str) -> None:
    with open(inst.path(freezer.PAUSED), "w", encoding="ascii") as file:
        file.write(text)
