"""Mounts of layers on this host: each layer is mounted once, read-only, for all containers that use it.

The users of a mount are not counted: each has a lease, so a crash cannot make the number wrong. In a user namespace,
where EROFS cannot be mounted, a layer is unpacked instead (unpacked.py), and remains for later instances.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from contextlib import AbstractContextManager, suppress

from images.store.image import Layer
from vmctl import leases, paths
from vmctl.linux import syscalls, usernamespace
from vmctl.linux.filetree import remove_tree
from vmctl.linux.locks import folder_locked

KIND = "layer"  # kind of the journal's entry


def mount_point(key: str) -> str:
    """Return the path of a layer's mount, even if it is not mounted."""
    if not usernamespace.is_host_root():
        from images.layer import unpacked

        return unpacked.path(key)
    return os.path.join(paths.run_root(), "layers", key[:12])


def mount_layer(layer: Layer, user: leases.User) -> str:
    """Mount a layer for a user, unless it is mounted already, and return the mount point. Raises OSError."""
    target = mount_point(layer.key)
    with _locked():
        user.journal.record(KIND, key=layer.key)
        leases.add(leases.layer(layer.key), user)
        if not usernamespace.is_host_root():
            from images.layer import unpacked

            unpacked.unpack(layer)
        elif not os.path.ismount(target):
            os.makedirs(target, exist_ok=True)
            mount_erofs(layer.path, target)
    return target


def release_layer(key: str, user: leases.User) -> None:
    """Unmount a layer, if it is mounted, unless another user has a lease of its mount."""
    with _locked():  # or two users that end at the same time would each find the lease of the other
        leases.remove(leases.layer(key), user)
        if usernamespace.is_host_root() and not leases.is_used(leases.layer(key)):
            _unmount(mount_point(key))
        with suppress(OSError):  # on a full disk; the removal can be repeated
            user.journal.strike(KIND, key=key)


def _unmount(target: str) -> None:
    if os.path.ismount(target):
        syscalls.umount2(target)
    with suppress(FileNotFoundError):
        os.rmdir(target)


def unused() -> list[str]:
    """Return the mount points of layers, with or without a mount, for which nobody has a lease."""
    folder = os.path.join(paths.run_root(), "layers")
    keys = [key[:12] for key in used()]
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(os.path.join(folder, name) for name in names if name not in keys)


def remove_unused(target: str) -> None:
    """Unmount a layer and remove its mount point, unless somebody uses it by now. Raises OSError."""
    with _locked():
        if target in unused():
            _unmount(target)


def remove_unpacked(folder: str) -> bool:
    """Remove an unpacked layer, unless an instance uses it; return whether it was removed."""
    with _locked():
        if any(key.startswith(os.path.basename(folder)) for key in used()):
            return False
        remove_tree(folder)
        return True


def used(without: Collection[str] = ()) -> set[str]:
    """Return the keys of the layers that instances use, without the instances named."""
    found = leases.all_users()
    prefix = leases.layer("")
    return {what.removeprefix(prefix) for what in found if what.startswith(prefix) and set(found[what]) - set(without)}


def mount_erofs(path: str, target: str) -> None:
    """Mount a layer's file, read-only. Raises OSError."""
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    try:
        syscalls.mount(path, target, "erofs", flags)
    except OSError as error:
        if error.errno != errno.ENOTBLK:  # before Linux 6.12, EROFS needs a block device
            raise
        mount_through_loop(path, target, flags)


def mount_through_loop(path: str, target: str, flags: int) -> None:
    """Mount a file through a loop device, which is removed when the file is unmounted; see loop(4). Raises OSError."""
    from vmctl.linux.loops import loop_device

    with loop_device(path) as device:
        syscalls.mount(device, target, "erofs", flags)


def _locked() -> AbstractContextManager[None]:
    return folder_locked(os.path.join(paths.run_root(), "layers"))
