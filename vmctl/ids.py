"""Ranges of the host's user and group ids, one for each instance, unique on the host.

The ids 0 to 65535 of a container's user namespace are such a range, and QEMU runs with the first id of one. A range
is leased by a symbolic link, named after its first id, that points to the folder of its owner. All links are in one
folder, which is independent of VMCTL_ROOT: two state roots never share an id. Nothing of another instance is read; its
lease is valid as long as its folder exists.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import paths
from vmctl.errors import ConflictError, UnavailableError
from vmctl.leases import User
from vmctl.linux import usernamespace
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

KIND = "ids"  # kind of the journal's entry
COUNT = 65536
# Ids that systemd's list (UIDS-GIDS) leaves unused: no login, no range of subuid(5), no nspawn container.
FIRST, END = 0x70000000, 0x7FFD0000
# Kept after a reboot: the files of a stopped instance still have its ids.
FOLDER = "/var/lib/vmctl-ids"


class Space(NamedTuple):
    """The ids that can be leased: the first ids of ranges of `step` ids, and the folder of the leases."""

    folder: str
    first: int
    end: int
    step: int


def _space() -> Space:
    """Return the ids of the host, for root; for an ordinary user single ids of the user's namespace.

    All containers of such a user have the same ids, because the owners of its unpacked layers cannot be mapped. The
    single ids, for QEMU, are those that systemd's list leaves to services, so hardly an image uses them.
    """
    if usernamespace.is_host_root():
        return Space(FOLDER, FIRST, END, COUNT)
    return Space(os.path.join(paths.state_root(), "ids"), 61184, 65520, 1)


def exist() -> bool:
    """Return whether there are ids to lease; an ordinary user without subordinate ids has none."""
    return _space().end <= usernamespace.ids()


def take(user: User, own: int | None = None) -> int:
    """Lease a range for `user` and return its first id; `own` is the range that the user had before, if any.

    The lease is recorded in the user's journal. Repeatable. Raises ConflictError if all ranges, or `own`, are taken,
    and OSError.
    """
    with _locked() as folder:
        for first in _order(user.id) if own is None else (own,):
            target = _target(folder, first)
            if own is not None and target == user.directory:
                return own
            if target is None:
                user.journal.record(KIND, first=first)
                os.symlink(user.directory, str(first), dir_fd=folder)
                return first
    what = "all ranges of user ids are" if own is None else f"the range of user ids from {own} is"
    raise ConflictError(f"{what} in use", hint="`vmctl prune` removes stopped instances")


def give_back(directory: str, entry: dict[str, Any]) -> None:
    """Undo a journal entry of kind `ids` of the owner of `directory`; a range that another owner has is kept."""
    first = entry["first"]
    if type(first) is not int:
        raise ValueError(first)
    with _locked() as folder:
        if _owner(folder, first) == directory:
            os.unlink(str(first), dir_fd=folder)


def hand_over(directory: str, new: str, entry: dict[str, Any]) -> None:
    """Let the range of a journal entry lead to the new folder of its owner. Raises OSError."""
    with _locked() as folder:
        if _owner(folder, entry["first"]) == directory:
            os.symlink(new, f"{entry['first']}.new", dir_fd=folder)
            os.rename(f"{entry['first']}.new", str(entry["first"]), src_dir_fd=folder, dst_dir_fd=folder)


def owners() -> dict[int, str]:
    """Return the folder of the owner of each leased range, by its first id."""
    with _locked() as folder:
        found = {int(name): _owner(folder, int(name)) for name in os.listdir(folder) if name.isdecimal()}
    return {first: owner for first, owner in found.items() if owner is not None}


def _order(identity: str) -> Iterator[int]:
    """Yield all ranges, beginning at one that depends on the user's id: a range just given back is not used again."""
    space = _space()
    count = (space.end - space.first) // space.step
    begin = int(identity, 16) % count
    yield from (space.first + (begin + number) % count * space.step for number in range(count))


def _target(folder: int, first: int) -> str | None:
    """Return the owner of a range, None if it is free; the lease of an owner that is gone is removed."""
    owner = _owner(folder, first)
    if owner is not None:
        try:
            os.lstat(owner)
        except (FileNotFoundError, NotADirectoryError):
            os.unlink(str(first), dir_fd=folder)
            return None
        except OSError:  # for instance a disk that does not answer: the owner may still run
            pass
    return owner


def _owner(folder: int, first: int) -> str | None:
    try:
        return os.readlink(str(first), dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return "/"  # not a link, so not made by vmctl: left alone, as if its owner existed


@contextmanager
def _locked() -> Iterator[int]:
    """Yield a descriptor of the folder of all leases, locked by flock(2). Raises UnavailableError, OSError."""
    path = _space().folder
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise UnavailableError(f"others can write to {path}", hint=f"chown root {path}; chmod 700 {path}")
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(folder)
