"""Files that are interfaces of the kernel: /proc, /sys, cgroups."""

from __future__ import annotations

import os

from vmctl import trace


def read(path: str) -> str:
    """Return the text of a kernel file; bytes that are not UTF-8 become surrogates. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = part = os.read(fd, 65536)
        while part and (part := os.read(fd, 65536)):
            found += part
    finally:
        os.close(fd)
    return found.decode(errors="surrogateescape")


def write(path: str, *texts: str) -> None:
    """Write to an existing kernel file, each text with a single write(2). Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for text in texts:
            os.write(fd, text.encode())
    finally:
        os.close(fd)
    for text in texts if trace.on else ():
        from vmctl.linux import commands

        command = f"echo {commands.quote(text)} > {commands.quote(path)}"
        trace.step(commands.join(["sh", "-c", command]) if trace.prefix else command)
