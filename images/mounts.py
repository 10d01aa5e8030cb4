"""Layers mounted on this host: each once, read-only, for all containers that use it.

Who uses a layer is not counted but looked up: in the journals of the instances. A crash cannot falsify that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from images.image import Layer
from vmctl import instance, paths
from vmctl.host import syscalls
from vmctl.host.locks import folder_locked
from vmctl.journal import Journal

KIND = "layer"  # of the journal's entry

# linux/loop.h
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4
_LOOP_CONFIG_BYTES, _LO_FLAGS_OFFSET = 304, 8 + 52


def mount_point(digest: str) -> str:
    """Return where a layer is, or would be, mounted."""
    return os.path.join(paths.run_root(), "layers", digest.partition(":")[2][:12])


def mount_layer(layer: Layer, journal: Journal) -> str:
    """Mount a layer unless it is, on behalf of the instance whose journal is given, and return the mount point.

    Raises OSError where the kernel refuses.
    """
    target = mount_point(layer.digest)
    with _locked():
        journal.record(KIND, digest=layer.digest)
        if not os.path.ismount(target):
            os.makedirs(target, exist_ok=True)
            mount_erofs(layer.path, target)
    return target


def release_layer(digest: str, journal: Journal) -> None:
    """Unmount a layer, if it is mounted, unless an instance other than the owner of `journal` uses it."""
    with _locked():
        if not any(_uses(other, digest) for other in _other_journals(journal)):
            _unmount(mount_point(digest))
        journal.strike(KIND, digest=digest)  # or of two that go at once each would leave it to the other


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
    with _loop_device(path) as device:
        syscalls.mount(device, target, "erofs", flags)


@contextmanager
def _loop_device(path: str) -> Iterator[str]:
    """Lend a loop device that shows the file. AUTOCLEAR frees it with its last user: this block, or a mount in it."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device, name = _configure_loop(file)
    finally:
        os.close(file)
    try:
        yield name
    finally:
        os.close(device)


def _configure_loop(file: int) -> tuple[int, str]:
    """Return an open loop device that shows `file`, and its name."""
    config = bytearray(_LOOP_CONFIG_BYTES)  # struct loop_config: u32 fd, u32 block_size, struct loop_info64 ...
    struct.pack_into("=I", config, 0, file)
    struct.pack_into("=I", config, _LO_FLAGS_OFFSET, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
                return device, name
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was quicker: ask for another one
                    raise
    finally:
        os.close(control)


def _other_journals(journal: Journal) -> Iterator[Journal]:
    for name in instance.names():
        other = os.path.join(paths.instances_root(), name, "journal")
        if other != journal.path:
            yield Journal(other)


def _uses(journal: Journal, digest: str) -> bool:
    return any(entry["kind"] == KIND and entry["digest"] == digest for entry in journal.entries())


def _locked() -> AbstractContextManager[None]:
    return folder_locked(os.path.join(paths.run_root(), "layers"))
