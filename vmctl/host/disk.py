"""Bytes that files really take: blocks, not lengths."""

from __future__ import annotations

import os


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
