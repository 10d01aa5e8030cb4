"""Removal of an instance: its journal undone backwards, then its files. One that cannot be read is removed as well."""

from __future__ import annotations

import re

from vmctl import instance
from vmctl.backend import Backend
from vmctl.errors import VmctlError
from vmctl.folder import Folder
from vmctl.instance import Instance
from vmctl.journal import Journal
from vmctl.named import TYPE_CHECKING
from vmctl.records import UnreadableError

if TYPE_CHECKING:
    from typing import Any


def remove(inst: Instance, backend: Backend) -> None:
    """Undo the journal backwards and remove the directory; the caller holds the lock.

    Every entry is tried, so that one that resists leaves nothing else behind; then the first failure is raised.
    """
    from vmctl.undo import UNDO

    failures: list[Exception] = []
    for entry in reversed(inst.journal.entries()):
        try:
            if entry["kind"] in UNDO:
                UNDO[entry["kind"]](inst, entry)
            else:
                backend.undo(inst, entry)
        except (VmctlError, OSError) as error:
            failures.append(error)
        except (LookupError, TypeError, ValueError):  # a damaged entry
            failures.append(UnreadableError(f"its journal has the damaged entry {_short(entry)}"))
    if failures:
        raise VmctlError(f"{inst.name} could not be removed completely: {failures[0]}", hint="try `vmctl rm -f` again")
    inst.timeline.mark("T9")
    inst.remove_files()


def remove_unreadable(name: str) -> list[str]:
    """Remove an instance of which only the journal may be readable, and return what was left, in words.

    Undone is what the host's own kinds of entries announce; a mode's own kinds would need its backend.
    """
    folder = Folder(name, "")
    with folder.locked():
        left = _undo_known(folder)
        folder.remove_files()
    return left


def _undo_known(folder: Folder) -> list[str]:
    from vmctl.undo import UNDO

    journal = Journal(folder.path("journal"))
    try:
        entries, damaged = journal.entries(), journal.damaged()
    except UnreadableError as error:
        return [str(error)]
    folder.id = _id_of(entries)
    left = [f"{damaged} damaged lines of its journal"] if damaged else []
    for entry in reversed(entries):
        try:
            if entry["kind"] in UNDO:
                UNDO[entry["kind"]](folder, entry)
            else:
                left.append(_short(entry))
        except (VmctlError, OSError) as error:
            left.append(f"{_short(entry)} ({error})")
        except (LookupError, TypeError, ValueError):
            left.append(f"{_short(entry)} (damaged)")
    return left


def _short(entry: dict[str, Any]) -> str:
    return " ".join(str(part) for part in entry.values())[:200]


def _id_of(entries: list[dict[str, Any]]) -> str:
    """Return the id of an instance from the name of its cgroup, empty if no entry has one."""
    names = (entry["name"] for entry in entries if entry["kind"] == "cgroup" and isinstance(entry.get("name"), str))
    return next((name[-8:] for name in names if re.fullmatch(rf".*\.{instance.ID}", name)), "")
