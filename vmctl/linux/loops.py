"""File systems inside of files: through a loop device, on a mount point or attached nowhere.

Nothing of either outlives its last user, so a killed command leaves none behind. See loop(4).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl.linux import syscalls

# linux/loop.h; struct loop_config: u32 fd, u32 block_size, struct loop_info64 ...
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4
_LOOP_CONFIG_BYTES, _LO_OFFSET, _LO_FLAGS = 304, 8 + 24, 8 + 52


@contextmanager
def loop_device(path: str, *, offset: int = 0, size_bytes: int = 0, writable: bool = False) -> Iterator[str]:
    """Lend a loop device that shows a part of a file, by default all. Raises OSError.

    AUTOCLEAR frees it with its last user: this block, or a mount that was made in it.
    """
    mode = os.O_RDWR if writable else os.O_RDONLY
    file = os.open(path, mode | os.O_CLOEXEC)
    try:
        device, name = _configure(file, mode, offset, size_bytes)
    finally:
        os.close(file)
    try:
        yield name
    finally:
        os.close(device)


@contextmanager
def detached(device: str, kind: str, options: tuple[str, ...] = (), *, read_only: bool = True) -> Iterator[str]:
    """Lend a folder with the content of a block device: a mount attached nowhere, gone with its user.

    `options` are flags of the file system. Raises OSError where the kernel refuses.
    """
    fd = syscalls.detached_mount(device, kind, options, read_only=read_only)
    try:
        yield f"/proc/self/fd/{fd}/."  # with the dot it is no link
    finally:
        os.close(fd)


def _configure(file: int, mode: int, offset: int, size_bytes: int) -> tuple[int, str]:
    """Return an open loop device that shows `file`, and its name."""
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
                if error.errno != errno.EBUSY:  # somebody else was quicker: ask for another one
                    raise
    finally:
        os.close(control)
