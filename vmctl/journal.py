"""What was made on the host, written down before it was made, so that any crash can be undone.

One JSON object per line, appended with a single write: a reader sees whole lines or none. No fsync: a crash of the
host itself takes the mounts, links and processes along, so there is nothing left to undo.
"""

from __future__ import annotations

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
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps({"kind": kind, **what}).encode() + b"\n")
        finally:
            os.close(fd)

    def entries(self) -> list[dict[str, Any]]:
        """Return what was recorded; a last line that was cut short counts as not written."""
        try:
            with open(self.path, encoding="utf-8") as file:
                lines = file.read().split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def strike(self, kind: str, **what: str | int) -> None:
        """Forget an object that has been unmade; for those that other instances look for in this journal."""
        rest = [entry for entry in self.entries() if entry != {"kind": kind, **what}]
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in rest)
        os.replace(self.path + ".new", self.path)
