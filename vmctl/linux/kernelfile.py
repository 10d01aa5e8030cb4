"""Files that are interfaces of the kernel: /proc, /sys, cgroups."""

from __future__ import annotations

import os


def write(path: str, text: str) -> None:
    """Write to an existing kernel file with a single write(2). Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
