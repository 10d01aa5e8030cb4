"""What containers and host processes need of a host, for `vmctl doctor`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from vmctl.errors import VmctlError
from vmctl.linux import abilities, cgroups, delegation
from vmctl.needs import Need, Package, network, program, root_first, tried

TINI = Package(("tini-static",), "tini", "tini-static", "tini")


def needs(*, namespaced: bool) -> Iterator[Need]:
    """Yield what a start needs, with namespaces or without."""
    yield _cgroup()
    yield tried("overlayfs", abilities.mount_overlay, "the writable layer", "modprobe overlay")
    yield _erofs()
    if namespaced:
        yield _namespaces()
        yield tried("seccomp", abilities.filter_system_calls, "system calls", "the kernel needs CONFIG_SECCOMP_FILTER")
        yield from network()
    yield program("tini", TINI, "`init: true`", required=False)


def _cgroup() -> Need:
    try:
        layout = cgroups.hierarchy()
    except VmctlError as error:
        return Need("cgroups", False, str(error), "limits", error.hint)
    parents = delegation.parents(layout.version, layout.mounts)
    if missing := [name for name in cgroups.CONTROLLERS if name in layout.mounts and name not in parents]:
        found = f"not for this user: {', '.join(missing)}; limits are refused"
        return Need("cgroups", None, found, "limits", delegation.hint(layout.version))
    version = "v2" if layout.version == 2 else "v1, hybrid" if _has_unified() else "v1"
    missing = [name for name in cgroups.CONTROLLERS if name not in layout.mounts]
    found = f"{version}: {', '.join(sorted(layout.mounts))}"
    return Need("cgroups", not missing, found, "limits", f"no controller {', '.join(missing)}" if missing else "")


def _has_unified() -> bool:
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return any(line.split(" ")[2] == "cgroup2" for line in file)


def _namespaces() -> Need:
    refused = abilities.refused_namespaces()
    works = [name for name in abilities.NAMESPACES if name not in refused]
    if not refused:
        return Need("namespaces", True, " ".join(works))
    reasons = ", ".join(sorted({str(error.strerror) for error in refused.values()}))
    needed = set(refused) - {"user"}
    hint = root_first(next(iter(refused.values())), "see /proc/sys/user/max_*_namespaces")
    return Need("namespaces", False if needed else None, f"not {' '.join(refused)}: {reasons}", hint=hint)


def _erofs() -> Need:
    error = abilities.failure_of(abilities.mount_erofs)
    number = error.errno if error else None
    if number == errno.ENODEV:
        return Need("erofs", False, "not in this kernel", "image layers", "modprobe erofs, or a newer kernel")
    if number in (errno.EPERM, errno.EACCES):
        return Need("erofs", True, "not for this user: layers are unpacked", "image layers")
    if number != errno.ENOTBLK:
        return Need("erofs", True, "mounts from a file", "image layers")
    loop = os.path.exists("/dev/loop-control")
    found = "mounts through a loop device" if loop else "needs a loop device, and there is no /dev/loop-control"
    return Need("erofs", loop, found, "image layers", "" if loop else "modprobe loop")
