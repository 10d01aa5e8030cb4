"""Files that are interfaces of the kernel: /proc, /sys, cgroups."""

from __future__ import annotations

import os

from vmctl import trace


def write(path: str, text: str) -> None:
    """Write to an existing kernel file with a single write(2). Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    if trace.on:
        from vmctl.linux import commands

        command = f"echo {commands.quote(text)} > {commands.quote(path)}"
        trace.step(commands.join(["sh", "-c", command]) if trace.prefix else command)
