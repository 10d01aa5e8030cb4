"""Files that must survive a loss of power: the image store, whose index must never name a file that was lost.

rename(2) is atomic for other processes only. After a loss of power the new name can exist without the content, unless
that was written to the disk before; and the name itself is written with its folder (fsync(2)). Nothing of an instance
is written in this way, because no instance outlives the host: it would make a start several milliseconds slower.
"""

from __future__ import annotations

import os

from vmctl.linux.filetree import replacing


def write(path: str, content: bytes) -> None:
    """Replace a file; at the return the new content is on the disk. Raises OSError."""
    with replacing(path, durable=True) as temporary, open(temporary, "wb") as file:
        file.write(content)
    sync(os.path.dirname(path))


def rename(source: str, target: str) -> None:
    """Rename a file that is whole on the disk before it has its new name; `sync` its folder later. Raises OSError."""
    sync(source)
    os.rename(source, target)


def rename_tree(source: str, target: str) -> None:
    """Rename a folder; its content is on the disk before it has its new name. Raises OSError."""
    from vmctl.linux import syscalls

    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)  # one call instead of thousands: a kernel has as many modules
    finally:
        os.close(fd)
    os.rename(source, target)
    sync(os.path.dirname(target))


def sync(path: str) -> None:
    """Write a file, or the names in a folder, to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
