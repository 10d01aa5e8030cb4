"""Layers mounted on this host: each once, read-only, for all containers that use it.

Who uses a layer is not counted but looked up: in the journals of the instances. A crash cannot falsify that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress

from images.store.image import Layer
from vmctl import instance, paths
from vmctl.journal import Journal
from vmctl.linux import syscalls
from vmctl.linux.locks import folder_locked

KIND = "layer"  # of the journal's entry


def mount_point(key: str) -> str:
    """Return where a layer is, or would be, mounted."""
    return os.path.join(paths.run_root(), "layers", key[:12])


def mount_layer(layer: Layer, journal: Journal) -> str:
    """Mount a layer unless it is, on behalf of the instance whose journal is given, and return the mount point.

    Raises OSError where the kernel refuses.
    """
    target = mount_point(layer.key)
    with _locked():
        journal.record(KIND, key=layer.key)
        if not os.path.ismount(target):
            os.makedirs(target, exist_ok=True)
            mount_erofs(layer.path, target)
    return target


def release_layer(key: str, journal: Journal) -> None:
    """Unmount a layer, if it is mounted, unless an instance other than the owner of `journal` uses it."""
    with _locked():
        if not any(_uses(other, key) for other in _other_journals(journal)):
            _unmount(mount_point(key))
        journal.strike(KIND, key=key)  # or of two that go at once each would leave it to the other


def _unmount(target: str) -> None:
    if os.path.ismount(target):
        syscalls.umount2(target)
    with suppress(FileNotFoundError):
        os.rmdir(target)


def mount_erofs(path: str, target: str) -> None:
    """Mount a layer's file, read-only. Raises OSError where the kernel refuses."""
    flags = syscalls.MS_RDONLY | syscalls.MS_NODEV
    try:
        syscalls.mount(path, target, "erofs", flags)
    except OSError as error:
        if error.errno != errno.ENOTBLK:  # before Linux 6.12 EROFS needs a block device
            raise
        mount_through_loop(path, target, flags)


def mount_through_loop(path: str, target: str, flags: int) -> None:
    """Mount a file through a loop device, which goes with the mount; see loop(4). Raises OSError."""
    from vmctl.linux.loops import loop_device

    with loop_device(path) as device:
        syscalls.mount(device, target, "erofs", flags)


def _other_journals(journal: Journal) -> Iterator[Journal]:
    for name in instance.names():
        other = os.path.join(paths.instances_root(), name, "journal")
        if other != journal.path:
            yield Journal(other)


def _uses(journal: Journal, key: str) -> bool:
    return any(entry["kind"] == KIND and entry["key"] == key for entry in journal.entries())


def _locked() -> AbstractContextManager[None]:
    return folder_locked(os.path.join(paths.run_root(), "layers"))
