"""Leases: who uses a shared object of this host, such as an image of the store or a mounted layer.

A lease is one symbolic link, named after the object and its user, that points to the user's folder. It is valid as long
as that folder exists, so the lease of a user whose folder was deleted by hand ends by itself and is removed later. A
symbolic link is created completely or not at all. Nothing is read from the folder.
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

KIND = "lease"  # kind of the journal's entry


class User(Protocol):
    """A user of shared objects; an instance is one."""

    name: str
    id: str  # distinguishes it from a later user of the same name
    directory: str
    journal: Journal  # a lease is recorded here before it is created


def image(digest: str) -> str:
    """Return the name of an image in leases."""
    return f"image:{digest}"


def kernel(folder: str) -> str:
    """Return the name, in leases, of the kernel in a folder of the store."""
    return f"kernel:{os.path.basename(folder)}"


def volume(name: str) -> str:
    """Return the name of a volume in leases."""
    return f"volume:{name}"


def snapshot(name: str, identity: str) -> str:
    """Return the name of a snapshot in leases."""
    return f"snapshot:{name}:{identity}"


def layer(key: str) -> str:
    """Return the name of a mounted layer in leases."""
    return f"layer:{key}"


def take(what: str, user: User) -> None:
    """Record a lease in the user's journal and create it; repeatable. Raises OSError."""
    user.journal.record(KIND, name=_name(what, user))
    add(what, user)


def undo(entry: dict[str, Any]) -> None:
    """Undo a journal entry of kind `lease`."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder(), os.path.basename(entry["name"])))


def add(what: str, user: User) -> None:
    """Create a lease that belongs to another object, whose journal entry covers it. Raises OSError."""
    link = os.path.join(folder(), _name(what, user))
    with suppress(FileExistsError):
        try:
            os.symlink(user.directory, link)
        except FileNotFoundError:  # the first lease on this host
            os.makedirs(folder(), mode=0o700, exist_ok=True)
            os.symlink(user.directory, link)


def remove(what: str, user: User) -> None:
    """Remove a lease that `add` created, if it exists."""
    undo({"name": _name(what, user)})


def named(what: str, user: User) -> str:
    """Return the name of a lease."""
    return _name(what, user)


def hand_over(name: str, user: str, directory: str) -> str:
    """Give a lease to the same user by another name, with another folder; return its new name. Raises OSError."""
    what, _, identity = name.rsplit(":", 2)
    new = f"{what}:{user}:{identity}"
    with suppress(FileExistsError):
        os.symlink(directory, os.path.join(folder(), new))
    undo({"name": name})
    return new


def users(what: str) -> list[str]:
    """Return the names of the users of an object, sorted."""
    return _users(f"{what}:").get(what, [])


def is_used(what: str) -> bool:
    """Return whether an object has a user; quicker than `users` if it has many."""
    names = (name for name in _listing() if name.startswith(f"{what}:"))
    return any(os.path.exists(os.path.join(folder(), name)) for name in names)  # follows the link


def all_users() -> dict[str, list[str]]:
    """Return the names of the users of every object that has any."""
    return _users("")


def folder() -> str:
    """Return the folder of all leases, which is kept when it is empty."""
    return os.path.join(paths.state_root(), "leases")


def _users(prefix: str) -> dict[str, list[str]]:
    """Return the users of the objects whose leases begin with `prefix`; remove leases that are no longer valid."""
    found: dict[str, list[str]] = {}
    for name in sorted(_listing()):
        if name.startswith(prefix) and name.count(":") >= 3:
            what, user, _ = name.rsplit(":", 2)
            if os.path.exists(os.path.join(folder(), name)):  # follows the link
                found.setdefault(what, []).append(user)
            else:
                undo({"name": name})
    return found


def _name(what: str, user: User) -> str:
    return f"{what}:{user.name}:{user.id}"


def _listing() -> list[str]:
    try:
        return os.listdir(folder())
    except FileNotFoundError:
        return []
