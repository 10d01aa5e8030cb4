"""Files that are doors of the kernel: /proc, /sys, cgroups."""

from __future__ import annotations

import os


def write(path: str, text: str) -> None:
    """Write to a file of the kernel's, which takes one write(2) and is never made. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
