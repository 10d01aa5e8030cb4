"""Undo journal entries of the kinds that belong to the host and not to one mode.

An entry that cannot be one of ours raises ValueError or TypeError before anything is done: a damaged journal must not
unmount or kill what belongs to others.
"""

from __future__ import annotations

import os

from vmctl import paths
from vmctl.errors import VmctlError
from vmctl.instances.folder import Home
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def _process(_: Home, entry: dict[str, Any]) -> None:
    from vmctl.linux import processes

    pid, start = entry["pid"], entry["start"]
    if not (type(pid) is type(start) is int and 0 < pid < 1 << 31):
        raise ValueError(pid)
    if entry.get("boot_id", "") not in ("", processes.boot_id()):
        return  # it ended with the host, and the pid is another process's now
    if pid == os.getpid():
        return  # it was the supervisor, and starts the instance again
    if not processes.end(pid, start):
        raise VmctlError(f"process {pid} is still running after SIGKILL")


def _cgroup(_: Home, entry: dict[str, Any]) -> None:
    from vmctl.linux.cgroups import Cgroup

    Cgroup(file_name(entry["name"])).remove()


def _frozen(_: Home, entry: dict[str, Any]) -> None:
    from vmctl.instances import freezer

    if (group := freezer.find(file_name(entry["name"]))) is not None:  # SIGKILL ends a process that SIGSTOP stopped
        freezer.thaw(group)


def file_name(name: str) -> str:
    """Return the name of a cgroup, lease or layer, which is one in a folder of ours. Raises ValueError, TypeError."""
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise ValueError(name)
    return name


def _mount(home: Home, entry: dict[str, Any]) -> None:
    from vmctl.linux import mountinfo, processes, usernamespace

    path: str = entry["path"]
    ours = (home.directory, paths.run_root())
    if not any(os.path.realpath(path).startswith(os.path.realpath(folder) + "/") for folder in ours):
        raise ValueError(path)
    if not usernamespace.is_host_root():  # an ordinary user may have no cgroup that lists the processes
        processes.end_rooted(os.path.realpath(path))
    mountinfo.unmount_all(path)


def _lease(_: Home, entry: dict[str, Any]) -> None:
    from vmctl import leases

    leases.undo({**entry, "name": file_name(entry["name"])})


def _ids(home: Home, entry: dict[str, Any]) -> None:
    from vmctl import ids

    ids.give_back(home.directory, entry)


def _link(home: Home, entry: dict[str, Any]) -> None:
    from vmctl.net import bridge

    bridge.undo(home.directory, entry)


def _unit(home: Home, entry: dict[str, Any]) -> None:
    from vmctl.linux import systemd

    systemd.remove(home.name, entry["path"])


UNDO = {
    "unit": _unit,
    "process": _process,
    "cgroup": _cgroup,
    "frozen": _frozen,
    "mount": _mount,
    "lease": _lease,
    "ids": _ids,
    "link": _link,
}
