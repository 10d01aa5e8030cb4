"""Volumes as detached mounts: made by the host's root, attached inside of an instance or of its file server.

Until it is attached, such a mount exists only as a descriptor: no path of the host leads to it, and it ends with its
last holder.
"""

from __future__ import annotations

import errno
import os

from vmctl import trace
from vmctl.linux import syscalls
from vmctl.spec.workload import Volume


def made(volume: Volume, namespace: int | None, warnings: list[str]) -> int:
    """Return a mount of a volume whose owners are mapped to those of a user namespace, if one is given.

    If its file system cannot map owners, that is added to the warnings. Raises OSError.
    """
    tree = copied(volume)
    if namespace is not None and not mapped(tree, namespace):
        warnings.append(
            f"the volume {volume.source} is on a file system that cannot map owners: inside, its files belong to nobody"
        )
    return tree


def copied(volume: Volume) -> int:
    """Return a copy of the mounts at and below the source of a volume.

    It is private: a mount inside must not appear on the host. `:ro` covers the mounts below too. A setuid program of
    the volume gives no rights, a device node no access: a workload that writes them must not use them.
    """
    tree = syscalls.open_tree(volume.source)
    try:
        read_only = syscalls.MOUNT_ATTR_RDONLY if volume.read_only else 0
        attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | read_only
        syscalls.mount_setattr(tree, attributes, propagation=syscalls.MS_PRIVATE)
        if trace.on:
            options = ",".join(("nosuid", "nodev", *(("ro",) if read_only else ())))
            trace.comment(f"open_tree, mount_setattr: a copy of the mounts at {volume.source} ({options})")
    except BaseException:
        os.close(tree)
        raise
    return tree


def mapped(tree: int, namespace: int) -> bool:
    """Map the owners in a volume and in the mounts below; if one of these cannot, only at its top; return if it did."""
    for recursive in (True, False):
        try:
            syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP, namespace, recursive=recursive)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
        else:
            return recursive
    return False
