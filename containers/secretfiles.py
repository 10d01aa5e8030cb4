"""The secrets of a workload: files in memory, in /run/secrets; only a start with secrets imports this module."""

from __future__ import annotations

import os

from containers import imagepath
from containers.identity import User
from vmctl import trace
from vmctl.linux import syscalls
from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import SECRETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from containers.launch import Written

_PLAIN = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC


def attach(secrets: Iterable[Written], user: User) -> None:
    """Mount the files, which belong to the user of the workload. Raises OSError, SpecError.

    They are complete before the mount has a place: no path of the image leads to them while they are written.
    """
    tree = syscalls.new_mount("tmpfs", (("source", "secrets"), ("mode", "755")), _PLAIN)
    try:
        for secret in secrets:
            fd = os.open(secret.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=tree)
            with os.fdopen(fd, "wb") as file:
                file.write(secret.content)
                os.fchown(fd, user.uid, user.gid)
                os.fchmod(fd, secret.mode)
        syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_RDONLY)
        place = imagepath.mount_point(SECRETS, is_folder=True)
        try:
            syscalls.move_mount(tree, place)
        finally:
            os.close(place)
    finally:
        os.close(tree)
    if trace.on:
        trace.comment(f"mount a tmpfs with the secrets on {SECRETS}")
