"""Remove an instance: undo its journal backwards, then remove its files; also for an instance that cannot be read."""

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

    Every entry is tried, so that an entry that fails leaves no other object behind. Then the first error is raised.
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
            failures.append(UnreadableError(f"its journal contains the damaged entry {_short(entry)}"))
    if failures:
        raise VmctlError(f"{inst.name} could not be removed completely: {failures[0]}", hint="try `vmctl rm -f` again")
    inst.timeline.mark("T9")
    inst.remove_files()


def remove_unreadable(name: str) -> list[str]:
    """Remove an instance of which at most the journal can be read; return a text for each object that is left.

    Entries of the host's kinds are undone. Entries of a mode's kinds are left: undoing them needs its backend.
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
    """Return the id of an instance from the name of its cgroup, or "" if no entry has that."""
    names = (entry["name"] for entry in entries if entry["kind"] == "cgroup" and isinstance(entry.get("name"), str))
    return next((name[-8:] for name in names if re.fullmatch(rf".*\.{instance.ID}", name)), "")
