"""The writable disk of a guest: a sparse file with an empty ext4, which holds the upper directory of its overlay."""

from __future__ import annotations

import os

from vmctl.run import run

DEFAULT_SIZE_BYTES = 1024**3


def make(path: str, size_bytes: int) -> None:
    """Make the disk, or leave it as it is when a first start has made it; about 0.7 MiB are allocated, in 10 ms.

    A file of our own reads as zeros wherever nothing was written, so neither the inode tables nor the journal need
    to be zeroed: mke2fs sees the first for itself and is told the second. -m 0: no reserve for root, who is alone.
    """
    if os.path.exists(path):
        return
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(fd, size_bytes)
    finally:
        os.close(fd)
    run(command(temporary))
    os.replace(temporary, path)


def command(path: str) -> list[str]:
    """Return the program call that makes the file system."""
    return ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-J", "size=4", "-E", "lazy_journal_init=1", path]
