"""Units of systemd as files: a unit, and the link by which a target starts it (systemd.unit(5))."""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl.linux import usernamespace

MARK = "# Written by vmctl."  # the first line of a unit of ours


def name(instance: str) -> str:
    """Return the name of the unit of an instance."""
    return f"vmctl-{instance}.service"


def target() -> str:
    """Return the target that is reached when the system, or the manager of a user, has started."""
    return "multi-user.target" if usernamespace.is_host_root() else "default.target"


def link(path: str) -> str:
    """Return the path of the link by which the target starts a unit."""
    return os.path.join(os.path.dirname(path), f"{target()}.wants", os.path.basename(path))


def is_ours(path: str) -> bool:
    """Return whether a unit is one that vmctl has written. Raises OSError."""
    if os.path.islink(path):
        return False
    with open(path, "rb") as file:
        return file.readline(200).startswith(MARK.encode())


def remove(instance: str, path: str) -> bool:
    """Remove the unit of an instance; return False if it is gone, or not ours.

    Raises ValueError for a path that cannot be its unit.
    """
    if os.path.basename(path) != name(instance) or not os.path.isabs(path):
        raise ValueError(path)
    if not os.path.lexists(path) or not is_ours(path):
        return False
    for one in (link(path), path):
        with suppress(FileNotFoundError):
            os.unlink(one)
    return True
