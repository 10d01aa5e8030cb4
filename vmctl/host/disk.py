"""Trees of files: the bytes they really take, and their removal."""

from __future__ import annotations

import os
import stat


def allocated_bytes(path: str) -> int:
    """Return the bytes allocated for a file, or for a tree, where a file with several names counts once (stat(2))."""
    seen: set[tuple[int, int]] = set()
    total = 0
    stack = [path]
    while stack:
        current = stack.pop()
        try:
            status = os.lstat(current)
            if os.path.isdir(current) and not os.path.islink(current) and not os.path.ismount(current):
                stack.extend(entry.path for entry in os.scandir(current))
        except FileNotFoundError:
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total


def remove_tree(path: str) -> None:
    """Remove a tree, if it is there; links in it are removed, never followed. Raises OSError.

    `shutil.rmtree` does the same, and imports three compression libraries, 4 ms.
    """
    if not os.path.lexists(path):
        return
    for _, folders, files, folder in os.fwalk(path, topdown=False):
        for name in files:
            os.unlink(name, dir_fd=folder)
        for name in folders:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            os.rmdir(name, dir_fd=folder) if stat.S_ISDIR(status.st_mode) else os.unlink(name, dir_fd=folder)
    os.rmdir(path)
