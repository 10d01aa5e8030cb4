"""Where a program is: apart from programs.py, because a start looks for programs that it does not run."""

from __future__ import annotations

import os


def which(program: str) -> str | None:
    """Return the path of `program` from PATH or the sbin directories, or None if it is not installed."""
    if "/" in program:
        return program if os.access(program, os.X_OK) else None
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    for folder in folders:
        path = os.path.join(folder, program)
        if not folder.startswith("/"):  # "" or ".": any user's program, if vmctl is called in that user's folder
            continue
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None
