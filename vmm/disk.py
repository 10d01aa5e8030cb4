"""The writable disk of a guest.

For an image of layers: a sparse file with an empty ext4, which contains the upper directory of the overlay. For a disk
image: a qcow2 file with the differences from it.
"""

from __future__ import annotations

import json
import os

from vmctl import trace
from vmctl.errors import SpecError
from vmctl.programs import run
from vmctl.spec.units import format_size

DEFAULT_SIZE_BYTES = 1024**3
LEAST_BYTES = 4 * 1024**2
SMALL_BYTES = 16 * 1024**2  # a journal of 4 MiB needs twice that, and the rest is to hold files
QCOW2_MOST_BYTES = 1 << 51  # with clusters of 64 KiB: docs/interop/qcow2.txt of QEMU, L1 table of at most 32 MiB
QCOW2_TABLES_BYTES = 64 * 1024**2


def make(path: str, size_bytes: int) -> None:
    """Create the disk unless it exists; takes 10 ms and allocates about 0.7 MiB.

    A new file reads as zeros, so neither the inode tables nor the journal need to be zeroed: mke2fs detects the first,
    and `lazy_journal_init` skips the second. -m 0: no reserved blocks for root, because root is the main user.
    """
    if os.path.exists(path):
        return
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(fd, size_bytes)
        if trace.on:
            trace.step(f"truncate -s {size_bytes} {temporary}")
    finally:
        os.close(fd)
    run(command(temporary, size_bytes))
    _rename(temporary, path)


def _rename(old: str, new: str) -> None:
    os.replace(old, new)
    if trace.on:
        trace.step(f"mv {old} {new}")


def command(path: str, size_bytes: int) -> list[str]:
    """Return the command that creates the file system; in a small one mke2fs decides whether there is a journal."""
    journal = ["-J", "size=4", "-E", "lazy_journal_init=1"] if size_bytes >= SMALL_BYTES else []
    return ["mke2fs", "-q", "-t", "ext4", "-m", "0", *journal, path]


def make_overlay(path: str, base: str, size_bytes: int | None) -> None:
    """Create the disk over another one unless it exists; allocates 200 KiB. Raises SpecError: see check_size."""
    if os.path.exists(path):
        return
    check_size(base, size_bytes)
    temporary = f"{path}.new"
    run(overlay_command(temporary, base, size_bytes))
    os.chmod(temporary, 0o600)
    _rename(temporary, path)


def file_bytes(path: str, *, raw: bool) -> int:
    """Return a size in bytes that the disk's file never exceeds: a qcow2 file also has tables, 1/8192 and less.

    A raw disk has its full size from the beginning.
    """
    size = size_bytes(path, raw=raw)
    return size if raw else int(size * 1.01) + QCOW2_TABLES_BYTES


def size_bytes(path: str, *, raw: bool) -> int:
    """Return the size of the disk that a guest sees in a file: raw, or qcow2 with the size in its header.

    The guest can write a header to a raw disk, so the caller must know which one it is.
    """
    if raw:
        return os.path.getsize(path)
    with open(path, "rb") as file:
        return int.from_bytes(file.read(32)[24:32], "big")


def overlay_command(path: str, base: str, size_bytes: int | None) -> list[str]:
    """Return the command that creates the qcow2 file."""
    size = [] if size_bytes is None else [str(-(-size_bytes // 512) * 512)]
    return ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path, *size]


def check_size(base: str, size_bytes: int | None) -> None:
    """Raise SpecError for a size below that of the disk `base`: its file systems would be truncated."""
    if size_bytes is not None and size_bytes > QCOW2_MOST_BYTES:
        raise SpecError(
            f"the key resources.disk: expected at most {format_size(QCOW2_MOST_BYTES)}, the limit of qcow2",
            hint="lower `resources.disk`",
        )
    least_bytes = int(json.loads(run(["qemu-img", "info", "-f", "qcow2", "--output=json", base])[1])["virtual-size"])
    if size_bytes is not None and size_bytes < least_bytes:
        raise SpecError(
            f"the key resources.disk: expected at least {format_size(least_bytes)}, the size of the image's disk",
            hint="leave the key out to keep that size",
        )
