"""What was made on the host, written down before it was made, so that any crash can be undone.

One JSON object per line, appended with a single write: a reader sees whole lines or none. No fsync: a crash of the
host itself takes the mounts, links and processes along, so there is nothing left to undo.
"""

from __future__ import annotations

import errno
import json
import os

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Journal:
    """The list of host objects of one instance, oldest first."""

    def __init__(self, path: str) -> None:
        self.path = path

    def record(self, kind: str, **what: str | int) -> None:
        """Announce an object that is about to be made."""
        append_line(self.path, {"kind": kind, **what})

    def strike(self, kind: str, **what: str | int) -> None:
        """Forget an object that has been unmade; for those that other instances look for in this journal."""
        append_line(self.path, {"struck": {"kind": kind, **what}})

    def entries(self) -> list[dict[str, Any]]:
        """Return what was recorded and not struck."""
        entries = read_lines(self.path)
        struck = [entry["struck"] for entry in entries if "struck" in entry]
        return [entry for entry in entries if "struck" not in entry and entry not in struck]


def append_line(path: str, value: dict[str, Any]) -> None:
    """Append a JSON object as one line, by one write: a reader sees all of it, or a last line without an end.

    Replacing a small file by rename(2), the other way to get that, makes ext4 write it to the disk at once (see
    auto_da_alloc in ext4(5)): 1 to 6 ms.
    """
    line = json.dumps(value).encode() + b"\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        written = os.write(fd, line)
        if written < len(line):  # the disk is full; half a line would spoil the next one
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


def read_lines(path: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one a line; none where there is no file, without a last line cut short."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]
