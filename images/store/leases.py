"""Who uses what of the store: a lease is one symbolic link, named after both, that leads to its user's folder.

It is in force as long as that folder exists, so one whose user was removed by hand counts for nothing, and is swept up.
A symbolic link is made whole or not at all. The store never looks into the folder: to it, a user is a name.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import paths
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Protocol

    from vmctl.journal import Journal
else:
    Protocol = object

KIND = "lease"  # of the journal's entry


class User(Protocol):
    """Who takes leases; an instance is one."""

    name: str
    id: str  # tells it from a later one of the same name
    directory: str
    journal: Journal  # knows of a lease before it is made


def image(digest: str) -> str:
    """Return what a lease of an image is called."""
    return f"image:{digest}"


def kernel(folder: str) -> str:
    """Return what a lease of a kernel in this folder of the store is called."""
    return f"kernel:{os.path.basename(folder)}"


def layer(key: str) -> str:
    """Return what a lease of a mounted layer is called."""
    return f"layer:{key}"


def take(what: str, user: User) -> None:
    """Take a lease, which the user's journal announces; repeatable. Raises OSError."""
    user.journal.record(KIND, name=_name(what, user))
    add(what, user)


def undo(entry: dict[str, Any]) -> None:
    """Undo a journal entry of kind `lease`."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder(), os.path.basename(entry["name"])))


def add(what: str, user: User) -> None:
    """Make a lease that is part of something else, which the journal announces. Raises OSError."""
    link = os.path.join(folder(), _name(what, user))
    with suppress(FileExistsError):
        try:
            os.symlink(user.directory, link)
        except FileNotFoundError:  # the first one of all
            os.makedirs(folder(), mode=0o711, exist_ok=True)
            os.symlink(user.directory, link)


def remove(what: str, user: User) -> None:
    """Remove what `add` made, if it is there."""
    undo({"name": _name(what, user)})


def users(what: str) -> list[str]:
    """Return the names of those that have a lease, sorted."""
    return all_users().get(what, [])


def all_users() -> dict[str, list[str]]:
    """Return the names of the users of everything that anybody has a lease of."""
    found: dict[str, list[str]] = {}
    for name in sorted(_listing()):
        what, user, _ = name.rsplit(":", 2)
        if os.path.exists(os.path.join(folder(), name)):  # follows the link
            found.setdefault(what, []).append(user)
        else:
            undo({"name": name})
    return found


def _name(what: str, user: User) -> str:
    return f"{what}:{user.name}:{user.id}"


def folder() -> str:
    """Return the folder of all leases, which stays when it is empty."""
    return os.path.join(paths.state_root(), "leases")


def _listing() -> list[str]:
    try:
        return [name for name in os.listdir(folder()) if name.count(":") >= 3]
    except FileNotFoundError:
        return []
