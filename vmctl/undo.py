"""Undo journal entries of the kinds that belong to the host and not to one mode."""

from __future__ import annotations

from vmctl.errors import VmctlError
from vmctl.home import Home
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def _process(_: Home, entry: dict[str, Any]) -> None:
    from vmctl.linux import processes

    if not processes.end(entry["pid"], entry["start"]):
        raise VmctlError(f"process {entry['pid']} is still running after SIGKILL")


def _cgroup(_: Home, entry: dict[str, Any]) -> None:
    from vmctl.linux.cgroups import Cgroup

    Cgroup(entry["name"]).remove()


def _frozen(_: Home, entry: dict[str, Any]) -> None:
    from vmctl import freezer

    freezer.thaw(freezer.find(entry["name"]))


def _mount(_: Home, entry: dict[str, Any]) -> None:
    from vmctl.linux import mountinfo

    mountinfo.unmount_all(entry["path"])


def _lease(_: Home, entry: dict[str, Any]) -> None:
    from vmctl import leases

    leases.undo(entry)


def _link(home: Home, entry: dict[str, Any]) -> None:
    from vmctl.net import bridge

    bridge.undo(home.directory, entry)


UNDO = {
    "process": _process,
    "cgroup": _cgroup,
    "frozen": _frozen,
    "mount": _mount,
    "lease": _lease,
    "link": _link,
}
