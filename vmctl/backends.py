"""Find the backend of a mode through the entry points `vmctl.backends` of the installed packages.

The files are read here, not by `importlib.metadata`, which takes 20 ms to import on the start path. For their place and
format see the entry points specification of the Python Packaging User Guide.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from vmctl.backend import Backend, Option
from vmctl.errors import SpecError, UnavailableError, VmctlError
from vmctl.light import import_module
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeVar

    from vmctl.backend import (
        HasByHand,
        HasConsole,
        HasCopy,
        HasFootprint,
        HasPause,
        HasReads,
        HasReceipt,
        HasUpdate,
        HasUsage,
        HasWritable,
    )
    from vmctl.snapshots.protocol import HasSnapshots

    Able = TypeVar(
        "Able",
        HasFootprint,
        HasWritable,
        HasReads,
        HasPause,
        HasCopy,
        HasUsage,
        HasReceipt,
        HasUpdate,
        HasConsole,
        HasByHand,
        HasSnapshots,
    )

GROUP = "[vmctl.backends]"


def modes(until: str = "") -> dict[str, str]:
    """Return each mode's name and the `module:class` that implements it; the search ends when mode `until` is found."""
    found: dict[str, str] = {}
    for folder in sys.path:
        for name in sorted(_listing(folder), reverse=True):  # most names come before `vmctl`
            if name.endswith((".dist-info", ".egg-info")):
                _read_group(os.path.join(folder, name, "entry_points.txt"), found)
                if until in found:
                    return found
    return found


def load(mode: str, options: Mapping[str, str] | None = None) -> Backend:
    """Return the backend of a mode, created with these options.

    Raises SpecError for an unknown mode or option, VmctlError if the backend cannot be loaded.
    """
    kind = _class(mode)
    if unknown := set(options or ()) - {option.name for option in kind.options}:
        raise SpecError(f"mode {mode} has no option {', '.join(sorted(unknown))}")
    try:
        return kind(**(options or {}))
    except VmctlError:
        raise
    except Exception as error:
        raise _broken(mode, kind.__module__, error) from error


def options(mode: str) -> tuple[Option, ...]:
    """Return the options of a mode. Raises the errors of `load`."""
    return _class(mode).options


def suited(mode: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that this mode has; one set of flags can be used for several modes."""
    names = {option.name for option in _class(mode).options}
    return {name: text for name, text in options.items() if name in names}


def ability(backend: Backend, kind: type[Able]) -> Able:
    """Return the backend with the type of an ability. Raises UnavailableError if its mode lacks the ability."""
    if isinstance(backend, kind):
        return backend
    raise UnavailableError(f"mode {backend.mode} cannot {kind.ability}")


_classes: dict[str, type[Backend]] = {}


def _class(mode: str) -> type[Backend]:
    if mode not in _classes:  # cached: a command needs its options first, then the backend
        _classes[mode] = _find_class(mode)
    return _classes[mode]


def _find_class(mode: str) -> type[Backend]:
    known = modes(mode)
    if mode not in known:
        names = ", ".join(sorted(known)) or "none; vmctl is not installed: run `make setup`"
        raise SpecError(f"there is no mode {mode}", hint=f"known modes: {names}")
    module, _, name = known[mode].partition(":")
    try:
        kind: type[Backend] = getattr(import_module(module), name)
        _ = [option.name for option in kind.options]  # read first by every command
    except Exception as error:  # any error of a backend: other modes still work
        raise _broken(mode, known[mode], error) from error
    return kind


def _broken(mode: str, place: str, error: Exception) -> VmctlError:
    return VmctlError(f"the backend of mode {mode} ({place}) cannot be loaded: {str(error) or type(error).__name__}")


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except OSError:
        return []


def _read_group(path: str, found: dict[str, str]) -> None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    inside = False
    for line in lines:
        if line.startswith("["):
            inside = line.strip() == GROUP
        elif inside and "=" in line:
            name, _, target = line.partition("=")
            found.setdefault(name.strip(), target.strip())
