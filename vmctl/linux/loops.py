"""File systems in files, mounted through a loop device.

The device and the mount end with their last user, so a killed command leaves neither behind. See loop(4).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl.errors import UnavailableError
from vmctl.linux import syscalls, views

# linux/loop.h; struct loop_config: u32 fd, u32 block_size, struct loop_info64 ...
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4
_LOOP_CONFIG_BYTES, _LO_OFFSET, _LO_FLAGS = 304, 8 + 24, 8 + 52


@contextmanager
def loop_device(path: str, *, offset: int = 0, size_bytes: int = 0, writable: bool = False) -> Iterator[str]:
    """Yield a loop device that shows a part of a file, by default all of it. Raises OSError.

    AUTOCLEAR frees the device with its last user: this block, or a mount made inside it. Raises UnavailableError if no
    device is free.
    """
    mode = os.O_RDWR if writable else os.O_RDONLY
    file = os.open(path, mode | os.O_CLOEXEC)
    try:
        device, name = _configure(file, mode, offset, size_bytes)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOSPC):
            raise
        raise UnavailableError(
            f"no loop device is available: {error.strerror}", hint="`losetup -a` lists those in use; `modprobe loop`"
        ) from None
    finally:
        os.close(file)
    try:
        yield name
    finally:
        os.close(device)


@contextmanager
def detached(device: str, kind: str, *, read_only: bool = True) -> Iterator[str]:
    """Yield a folder with the content of a block device: a detached mount, which ends with this process.

    The file system may be hostile. Links in it can only be read. An error does not stop the host: a field of ext4 asks
    for that (ext4(5), `errors=panic`). Raises OSError if the kernel refuses the mount.
    """
    options = ("errors=continue",) if kind == "ext4" else ()
    fd = syscalls.detached_mount(device, kind, options, read_only=read_only)
    try:
        views.forbid_links(fd)
        yield f"/proc/self/fd/{fd}/."  # without the dot it would be a symbolic link
    finally:
        os.close(fd)


def _configure(file: int, mode: int, offset: int, size_bytes: int) -> tuple[int, str]:
    """Return the descriptor and the name of a new loop device that shows `file`."""
    config = bytearray(_LOOP_CONFIG_BYTES)
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if mode == os.O_RDONLY else 0)
    struct.pack_into("=I", config, 0, file)
    struct.pack_into("=QQ", config, _LO_OFFSET, offset, size_bytes)
    struct.pack_into("=I", config, _LO_FLAGS, flags)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(name, mode | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
                return device, name
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # another process has taken it: ask for the next
                    raise
    finally:
        os.close(control)
