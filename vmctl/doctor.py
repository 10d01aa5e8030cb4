"""The checks of `vmctl doctor`: facts of the host, and the needs of each mode."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vmctl import backends, holder, paths
from vmctl.errors import VmctlError
from vmctl.linux import abilities
from vmctl.needs import Need, Package, program
from vmctl.spec.units import format_size

DISK_SPACE_BYTES = 2 * 1024**3  # for images, a kernel and some writable layers
LEAST_KERNEL = (5, 11)  # for close_range(2) with CLOSE_RANGE_CLOEXEC
UIDMAP = Package(("newuidmap",), "uidmap", "shadow-utils", "shadow")
IP = Package(("ip",), "iproute2", "iproute", "iproute2")


class Check(NamedTuple):
    """The result of checking a need; `ok` is None if its absence affects only comfort or speed."""

    name: str
    ok: bool | None
    found: str
    needed_by: str
    hint: str = ""


def checks(others: Iterable[tuple[str, Iterable[Need]]] = ()) -> list[Check]:
    """Return the results in the order of the output; the host is not changed.

    `others` are (owner, needs) pairs of components that this module does not know.
    """
    found: dict[str, tuple[Need, list[str]]] = {}
    for owner, needs in (("every mode", _host()), *_of_modes(), *others, ("images", [_disk_space()])):
        for need in needs:
            found.setdefault(need.name, (need, []))[1].append(owner)
    return [_check(need, owners) for need, owners in found.values()]


def _check(need: Need, owners: list[str]) -> Check:
    purpose = f": {need.purpose}" if need.purpose else ""
    return Check(need.name, need.ok, need.found, ", ".join(owners) + purpose, need.hint)


def _of_modes() -> Iterator[tuple[str, Iterable[Need]]]:
    """Yield each mode with its needs; a backend that cannot be loaded is an unmet need."""
    for mode in sorted(backends.modes()):
        try:
            yield mode, list(backends.load(mode).needs())
        except Exception as error:  # of a backend that we do not know: it must not hide the other checks
            found = str(error) if isinstance(error, VmctlError) else f"{type(error).__name__}: {error}"
            yield mode, [Need(f"mode {mode}", False, found, hint="install its package again, or uninstall it")]


def _host() -> Iterator[Need]:
    yield from _privileges()
    release, machine = os.uname().release, os.uname().machine
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    recent = numbers >= LEAST_KERNEL
    yield Need("kernel", recent, f"{release} {machine}", hint="" if recent else "Linux 5.11 or later is needed")
    yield program("ip", IP, "inspecting the instances' network", required=False)


def _privileges() -> Iterator[Need]:
    """Yield what gives this user the rights over namespaces and mounts: being root, or user namespaces."""
    if os.geteuid() == 0:
        yield Need("root", True, "uid 0")
        return
    error = abilities.failure_of(abilities.enter_user_namespace)
    if error is not None:
        reason = holder.refusal(error.strerror or str(error))
        yield Need("user namespaces", False, str(reason), hint=reason.hint)
        return
    yield Need("user namespaces", True, f"works: uid {os.geteuid()} needs no root")
    ids = holder.subordinate_ids()
    if ids is not None:
        yield Need(
            "subordinate ids", True, f"{sum(ids.length for ids in ids[0])} from {ids[0][0].first} on", "users of images"
        )
        return
    yield Need(
        "subordinate ids",
        None,
        "none: an image has only root, all files belong to root, and `user:` is refused",
        "users of images",
        f"{UIDMAP.hint()}; sudo usermod --add-subuids 524288-589823 --add-subgids 524288-589823 $USER",
    )


def _disk_space() -> Need:
    folder = paths.state_root()
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    status = os.statvfs(folder)
    free_bytes = status.f_bavail * status.f_frsize
    enough = free_bytes >= DISK_SPACE_BYTES
    hint = "" if enough else f"at least {format_size(DISK_SPACE_BYTES)} is recommended; VMCTL_ROOT sets another folder"
    return Need("disk space", enough, f"{format_size(free_bytes)} free at {folder}", hint=hint)
