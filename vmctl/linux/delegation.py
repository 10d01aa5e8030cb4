"""Which control groups vmctl may make: root any, an ordinary user those below a group that was given to this user.

v2: systemd gives each user the group `user@UID.service`. Processes can be moved only between groups below it
(cgroup-v2.rst, "Delegation Containment"), so the command has to run there too. v1: root makes a folder `vmctl-UID` in
the hierarchy of each controller and gives it to the user.
"""

from __future__ import annotations

import os

from vmctl.linux import usernamespace

PARENT = "vmctl"


def parents(version: int, mounts: dict[str, str]) -> dict[str, str]:
    """Return controller -> folder in which the groups of instances are made, without controllers that we do not have.

    `mounts` is the mount point of each controller.
    """
    if usernamespace.is_host_root():
        return {name: f"{mount}/{PARENT}" for name, mount in mounts.items()}
    if version == 1:
        uid = usernamespace.host_uid()
        given = {name: f"{mount}/{PARENT}-{uid}" for name, mount in mounts.items()}
        return {name: folder for name, folder in given.items() if _is_ours(folder)}
    root = _given_by_systemd(next(iter(mounts.values())))
    if root is None:
        return {}
    with open(f"{root}/cgroup.controllers", encoding="ascii") as file:
        available = file.read().split()
    return {name: f"{root}/{PARENT}" for name in mounts if name in available}


def hint(version: int) -> str:
    """Return what to type so that this user gets control groups."""
    if version == 2:
        return "systemd-run --user --scope vmctl ..., or run vmctl as root"
    uid = usernamespace.host_uid()
    make = f"mkdir $c/{PARENT}-{uid} && chown -R {uid} $c/{PARENT}-{uid}"
    return f"as root: for c in /sys/fs/cgroup/{{memory,cpu,pids}}; do {make}; done"


def _given_by_systemd(mount: str) -> str | None:
    """Return the uppermost group around this process that belongs to this user, or None."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "/")
    path = mount
    for name in own.strip("/").split("/"):
        path = os.path.join(path, name)
        if name and _is_ours(path):
            return path
    return None


def _is_ours(folder: str) -> bool:
    return os.path.isdir(folder) and all(
        os.access(os.path.join(folder, name), os.W_OK) for name in ("", "cgroup.procs")
    )
