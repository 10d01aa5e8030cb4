"""The journal of an instance: objects on the host, recorded before they are made, so that any crash can be undone.

One JSON object per line, appended with a single write: a reader sees complete lines only. It is not synced to the disk:
after a crash of the host, its mounts, links and processes are gone, so nothing is left to undo.
"""

from __future__ import annotations

from vmctl import records
from vmctl.linux import filetree, processes
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
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
        return self.content().objects

    def damaged(self) -> int:
        """Return the number of lines that cannot be read: their objects cannot be undone."""
        return self.content().damaged

    def content(self) -> records.Lines:
        """Return both of the above, read once."""
        lines, damaged = records.lines(self.path, "its journal")
        found: list[dict[str, Any]] = []
        for entry in lines:
            if "struck" in entry:  # only what was recorded before: the object may have been made again since then
                found = [other for other in found if other != entry["struck"]]
            elif _names_a_kind(entry):
                found.append(entry)
            else:
                damaged += 1
        return records.Lines(found, damaged)

    def replace(self, entries: Sequence[dict[str, Any]]) -> None:
        """Replace all entries by these, each once; the file is replaced whole. Raises OSError."""
        kept = [entry for number, entry in enumerate(entries) if entry not in entries[:number]]
        filetree.write_atomic(self.path, "".join(f"{records.line(entry)}\n" for entry in kept))


def _names_a_kind(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("kind"), str)
