"""Snapshots on disk: each is a folder that clones are started from.

`<state root>/snapshots/NAME` has the record `snapshot.json`, the leases of the snapshot in `journal`, and files of the
mode. The folder is also the lock of the snapshot (flock(2)). The record is written last, so a folder without it belongs
to a command at work, which has the lock, or to a killed one. Each clone has a lease of the snapshot, until it is
removed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from vmctl import leases, paths, records
from vmctl.errors import ConflictError, NoSuchSnapshot, NotFoundError, StateError
from vmctl.journal import Journal
from vmctl.light import json
from vmctl.linux import filetree, locks
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec.rules import check_name, is_name
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from typing import Any

RECORD, JOURNAL = "snapshot.json", "journal"
_HEX_DIGITS = frozenset("0123456789abcdef")


class Holder:
    """The user of the leases that a snapshot has: see leases.User."""

    def __init__(self, name: str, identity: str) -> None:
        self.name = f"snapshot {name}"  # as errors call it; no instance can have this name
        self.id = identity
        self.directory = folder(name)
        self.journal = Journal(os.path.join(self.directory, JOURNAL))


class Snapshot(NamedTuple):
    """The record of a snapshot."""

    name: str
    id: str  # 8 hex digits: distinguishes it from a later one of the same name
    mode: str
    options: Mapping[str, str]  # of the mode, as the instance was started with
    workload: dict[str, Any]
    image_digest: str
    origin: str  # the instance that it was taken of
    origin_id: str
    created_s: float  # since the epoch
    process_state: bool  # memory and processes are in it
    took_s: float
    pause_s: float  # for so long the instance was paused
    size_bytes: int  # on the disk
    clone_memory_bytes: int  # expected of each clone; 0 if unknown
    clone_disk_bytes: int  # of each clone before it writes anything
    left_out: tuple[str, ...]  # what clones do not have: a sentence each
    facts: dict[str, Any]  # only the mode reads them
    temporary: bool = False  # it is removed with its last clone

    @property
    def folder(self) -> str:
        """The folder with its files."""
        return folder(self.name)

    @property
    def work(self) -> Workload:
        """The workload of the instance that it was taken of. Raises records.UnreadableError."""
        return Workload.from_values(self.workload, f"the workload of the snapshot {self.name}")

    def users(self) -> list[str]:
        """Return the names of its clones, also of those that have ended."""
        return leases.users(leases.snapshot(self.name, self.id))


def root() -> str:
    """Return the folder of all snapshots."""
    return os.path.join(paths.state_root(), "snapshots")


def folder(name: str) -> str:
    """Return the folder of a snapshot, even if it does not exist."""
    return os.path.join(root(), name)


def find(name: str) -> Snapshot:
    """Return a snapshot. Raises NotFoundError, also for an invalid name, and records.UnreadableError."""
    if not is_name(name):
        raise absent(name)
    try:
        return _read(name)
    except FileNotFoundError:
        raise absent(name) from None


def _read(name: str) -> Snapshot:
    what = f"the snapshot {name}"
    try:
        values = records.checked_format(records.read(os.path.join(folder(name), RECORD), what), what)
        found: Snapshot = records.build(Snapshot, {**values, "name": name}, what, {})
        if len(found.id) != 8 or not set(found.id) <= _HEX_DIGITS:  # it becomes part of paths
            raise records.UnreadableError(f"{what} is damaged: {found.id[:20]!a} is not an id")
        return found
    except NotADirectoryError:
        raise records.UnreadableError(f"{what} is damaged: it is not a folder", hint=_removal(name)) from None
    except records.UnreadableError as error:
        error.hint = error.hint or _removal(name)
        raise


def _removal(name: str) -> str:
    return f"`vmctl snapshot rm -f {name}` removes it"


def absent(name: str) -> NoSuchSnapshot:
    """Return the error for a name that no snapshot has."""
    return NoSuchSnapshot(f"there is no snapshot {name[:80]}", hint="`vmctl snapshot ls` lists them")


def names() -> list[str]:
    """Return the names of all snapshots, sorted, also of those that cannot be read or are being taken."""
    return list(filter(is_name, map(os.path.basename, _listing())))


def is_unfinished(name: str) -> bool:
    """Return whether a folder has no record: its snapshot is being taken, or was by a command that was killed."""
    return _is_partial(folder(name))


@contextmanager
def new(name: str) -> Iterator[Holder]:
    """Yield the holder of a new snapshot, whose folder is empty and locked, and is removed if the block fails.

    Raises SpecError for a name that cannot be used, ConflictError if it is taken.
    """
    check_name(name)
    remove_unfinished()
    with ExitStack() as stack:
        while True:
            os.makedirs(root(), mode=0o700, exist_ok=True)
            try:
                os.mkdir(folder(name), 0o700)
            except FileExistsError:
                raise _taken(name) from None
            with suppress(FileNotFoundError):  # another command took it for one of a killed command
                stack.enter_context(_locked(name))
                break
        try:
            yield Holder(name, os.urandom(4).hex())
        except BaseException:
            _delete(name)
            raise


def _taken(name: str) -> ConflictError:
    if is_unfinished(name):
        return ConflictError(f"a snapshot {name} is being taken by another command", hint="use another name")
    return ConflictError(
        f"there is a snapshot {name} already", hint=f"use another name; `vmctl snapshot rm {name}` removes that one"
    )


def write(snapshot: Snapshot) -> None:
    """Make a snapshot complete: its files and its record are on the disk when this returns. Raises OSError."""
    from vmctl.linux import durable, syscalls

    fd = os.open(snapshot.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)
    values = {key: part for key, part in snapshot._asdict().items() if key != "name"}
    line = json.dumps(records.versioned(values)).encode() + b"\n"
    durable.write(os.path.join(snapshot.folder, RECORD), line)
    durable.sync(root())


def lease(name: str, identity: str, user: leases.User) -> Snapshot:
    """Return a snapshot and give an instance a lease of it, so that it is not removed; repeatable.

    Raises NotFoundError if it was removed, also if another one has its name by now, and records.UnreadableError.
    """
    with suppress(FileNotFoundError), _locked(name):
        found = find(name)
        if found.id == identity:
            leases.take(leases.snapshot(name, identity), user)
            return found
    raise NotFoundError(
        f"{user.name} is a clone of the snapshot {name}, which was removed",
        hint=f"`vmctl rm {user.name}`, and clone another snapshot",
    )


def remove(name: str, *, force: bool = False) -> None:
    """Remove a snapshot. Raises NotFoundError, StateError if clones use it.

    One that cannot be read only with `force`; else it raises records.UnreadableError.
    """
    if not is_name(name):
        raise absent(name)
    try:
        with _locked(name):
            found = _known(name, force=force)
            if users := found.users() if found else users_of(name):
                raise StateError(
                    f"the snapshot {name} is used by {', '.join(users[:10])}{', ...' if users[10:] else ''}",
                    hint=f"`vmctl rm -f {users[0]}` removes the clone; clones that have ended use it too",
                )
            _delete(name, found)
    except FileNotFoundError:
        raise absent(name) from None
    except NotADirectoryError:  # nothing that vmctl has made
        if not force:
            raise records.UnreadableError(f"the snapshot {name} is not a folder", hint=_removal(name)) from None
        os.unlink(folder(name))


def _known(name: str, *, force: bool) -> Snapshot | None:
    try:
        return find(name)
    except records.UnreadableError:
        if not force:
            raise
        return None


def users_of(name: str) -> list[str]:
    """Return the names of the clones of a snapshot, also of one that cannot be read."""
    prefix = leases.snapshot(name, "")
    return sorted({user for what, users in leases.all_users().items() if what.startswith(prefix) for user in users})


def remove_temporary(name: str, identity: str) -> None:
    """Remove a snapshot that is there for its clones only, if no clone is left; else do nothing."""
    with suppress(NotFoundError, StateError, records.UnreadableError):
        found = find(name)
        if found.temporary and found.id == identity:
            remove(name)


def _delete(name: str, found: Snapshot | None = None) -> None:
    """Delete the files of a snapshot and what it has outside; its name is free at once."""
    if found is not None:
        _drop(found)
    part = os.path.join(root(), f".{name}.{os.urandom(4).hex()}.{os.getpid()}")
    os.rename(folder(name), part)
    _clear(part)


def _clear(path: str) -> None:
    """Give back the leases of a snapshot that is not one any more, and remove its folder."""
    with suppress(records.UnreadableError):
        entries = Journal(os.path.join(path, JOURNAL)).entries()
        taken = [str(entry.get("name")) for entry in entries if entry["kind"] == leases.KIND]
        owners = {":".join(name.rsplit(":", 2)[1:]) for name in taken}
        keys = [str(entry.get("key")) for entry in entries if entry["kind"] == "layer"]
        for name in (*taken, *(f"{leases.layer(key)}:{owner}" for key in keys for owner in owners)):
            leases.undo({"name": name})
    filetree.remove_tree(path)


def _drop(found: Snapshot) -> None:
    """Let its mode remove what it has outside of the folder; a mode that is not installed has nothing to remove."""
    from vmctl import backends
    from vmctl.errors import VmctlError
    from vmctl.snapshots.protocol import HasSnapshots

    try:
        backend = backends.load(found.mode)
    except VmctlError:
        return
    if isinstance(backend, HasSnapshots):
        backend.drop_snapshot(found)


def unused_temporary() -> list[Snapshot]:
    """Return the snapshots that were taken for their clones only, and have none: a killed command has left them."""
    found = []
    for name in names():
        with suppress(NotFoundError, records.UnreadableError):
            one = find(name)
            if one.temporary and not one.users():
                found.append(one)
    return found


def unfinished() -> list[str]:
    """Return the folders of what killed commands were taking or removing."""
    found = []
    for path in filter(_is_partial, _listing()):
        with suppress(OSError), locks.held_at_once(path):  # else a command is at work, or it is gone
            if _is_partial(path):
                found.append(path)
    return found


def remove_unfinished() -> None:
    """Remove what killed commands were taking or removing; what cannot be removed is left."""
    for path in filter(_is_partial, _listing()):
        with suppress(OSError), locks.held_at_once(path):
            if _is_partial(path):
                _clear(path)


def _listing() -> list[str]:
    try:
        return [os.path.join(root(), name) for name in sorted(os.listdir(root()))]
    except FileNotFoundError:
        return []


def _is_partial(path: str) -> bool:
    return os.path.basename(path).startswith(".") or not os.path.lexists(os.path.join(path, RECORD))


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold the lock of a snapshot. Raises FileNotFoundError if it does not exist."""
    fd = os.open(folder(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(fd), os.stat(folder(name))):  # another one has its name by now
            raise FileNotFoundError(folder(name))
        yield
    finally:
        os.close(fd)
