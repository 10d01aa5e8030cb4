"""The journal of an instance: objects on the host, recorded before they are made, so that any crash can be undone.

One JSON object per line, appended with a single write: a reader sees complete lines only. It is not synced to the disk:
after a crash of the host, its mounts, links and processes are gone, so nothing is left to undo.
"""

from __future__ import annotations

from vmctl import records
from vmctl.linux import processes
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Journal:
    """The objects of one instance on the host, oldest first."""

    def __init__(self, path: str) -> None:
        self.path = path

    def record(self, kind: str, **what: str | int) -> None:
        """Record an object that is about to be made."""
        records.append(self.path, {"kind": kind, **what})

    def record_process(self, pid: int, start: int | None, role: str) -> None:
        """Record a process; with the boot of the host, because another one can get the same pid and start time."""
        self.record("process", pid=pid, start=start or 0, role=role, boot_id=processes.boot_id())

    def strike(self, kind: str, **what: str | int) -> None:
        """Strike out an object that has been removed; for objects that other instances look up in this journal."""
        records.append(self.path, {"struck": {"kind": kind, **what}})

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries that were recorded and not struck out. Raises UnreadableError for a later format."""
        entries = self._lines().objects
        struck = [entry["struck"] for entry in entries if "struck" in entry]
        return [entry for entry in entries if _names_a_kind(entry) and entry not in struck]

    def damaged(self) -> int:
        """Return the number of lines that cannot be read: their objects cannot be undone."""
        found = self._lines()
        return found.damaged + sum(1 for entry in found.objects if "struck" not in entry and not _names_a_kind(entry))

    def _lines(self) -> records.Lines:
        return records.lines(self.path, "its journal")


def _names_a_kind(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("kind"), str)
