"""What was made on the host, written down before it was made, so that any crash can be undone.

One JSON object per line, appended with a single write: a reader sees whole lines or none. No fsync: a crash of the
host itself takes the mounts, links and processes along, so there is nothing left to undo.
"""

from __future__ import annotations

from vmctl import records
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class Journal:
    """The list of host objects of one instance, oldest first."""

    def __init__(self, path: str) -> None:
        self.path = path

    def record(self, kind: str, **what: str | int) -> None:
        """Announce an object that is about to be made."""
        records.append(self.path, {"kind": kind, **what})

    def strike(self, kind: str, **what: str | int) -> None:
        """Take back an object that has been removed; for those that other instances look for in this journal."""
        records.append(self.path, {"struck": {"kind": kind, **what}})

    def entries(self) -> list[dict[str, Any]]:
        """Return what was recorded and not struck. Raises UnreadableError for a later format."""
        entries = self._lines().objects
        struck = [entry["struck"] for entry in entries if "struck" in entry]
        return [entry for entry in entries if _names_a_kind(entry) and entry not in struck]

    def damaged(self) -> int:
        """Return how many lines cannot be read: what they announce cannot be undone."""
        found = self._lines()
        return found.damaged + sum(1 for entry in found.objects if "struck" not in entry and not _names_a_kind(entry))

    def _lines(self) -> records.Lines:
        return records.lines(self.path, "its journal")


def _names_a_kind(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("kind"), str)
