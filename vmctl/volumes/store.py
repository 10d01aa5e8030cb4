"""Named volumes: each is a folder that outlives the instances that use it.

`<state root>/volumes/NAME` has the record `volume.json`, the folder `data`, which instances see, and for a moment
`new` (see filling.py). It is also the lock of the volume (flock(2)). Owners on disk are the ids inside: a container's
user namespace and the file server of a guest are mapped to them, so every mode sees the same owners.

An instance that uses a volume has a lease of it, from before its first start until it is removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from vmctl import leases, paths, records
from vmctl.errors import NotFoundError, SpecError, StateError
from vmctl.light import json
from vmctl.linux import durable, filetree
from vmctl.named import NamedTuple
from vmctl.spec.scalars import VOLUME_NAME_MAX, is_volume_name

RECORD = "volume.json"


class NamedVolume(NamedTuple):
    """The record of a volume."""

    name: str
    created_s: float  # since the epoch
    labels: Mapping[str, str] = {}

    @property
    def data(self) -> str:
        """The folder that instances see."""
        return data(self.name)


def folder(name: str) -> str:
    """Return the folder of a volume, even if it does not exist."""
    return os.path.join(paths.volumes_root(), name)


def data(name: str) -> str:
    """Return the folder of a volume that instances see."""
    return os.path.join(folder(name), "data")


def check_name(name: str) -> None:
    """Raise SpecError if `name` cannot be that of a volume."""
    if not is_volume_name(name):
        hint = f"up to {VOLUME_NAME_MAX} letters, digits, '-', '_' and '.', beginning with a letter or digit"
        raise SpecError(f"the name {name[:80]!r} cannot be that of a volume", hint=hint)


def create(name: str, labels: Mapping[str, str] = {}) -> NamedVolume:
    """Return the volume of this name, which is created if it does not exist; an existing one keeps its labels.

    It appears whole, also after a loss of power. Raises SpecError, OSError.
    """
    check_name(name)
    with suppress(NotFoundError):
        return find(name)
    made = NamedVolume(name, time.time(), labels)
    root = paths.volumes_root()
    os.makedirs(root, mode=0o700, exist_ok=True)
    remove_unfinished()
    part = _unfinished(name)
    os.mkdir(part, 0o700)
    try:
        os.mkdir(os.path.join(part, "data"))
        os.chmod(os.path.join(part, "data"), 0o755)  # independent of the umask: any user inside may enter it
        durable.write(os.path.join(part, RECORD), _line(made))
        os.rename(part, folder(name))
    except OSError as error:
        filetree.remove_tree(part)
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return find(name)  # another command was quicker
    durable.sync(root)
    return made


def _unfinished(name: str) -> str:
    """Return a path for a volume that this process creates or removes."""
    return os.path.join(paths.volumes_root(), f".{name}.{os.urandom(4).hex()}.{os.getpid()}")


def _line(volume: NamedVolume) -> bytes:
    values = {"created_s": volume.created_s, "labels": dict(volume.labels)}
    return json.dumps(records.versioned(values)).encode() + b"\n"


def unfinished() -> list[str]:
    """Return the paths of what killed commands were creating or removing."""
    root = paths.volumes_root()
    listed = os.listdir(root) if os.path.isdir(root) else []
    return [os.path.join(root, name) for name in sorted(listed) if name.startswith(".") and not _is_at_work(name)]


def _is_at_work(name: str) -> bool:
    pid = name.rpartition(".")[2]
    return pid.isdigit() and os.path.exists(f"/proc/{pid}")


def remove_unfinished() -> None:
    """Remove what killed commands were creating or removing; what cannot be removed is left."""
    for path in unfinished():
        with suppress(OSError):
            filetree.remove_tree(path)


def find(name: str) -> NamedVolume:
    """Return a volume. Raises NotFoundError, UnreadableError."""
    if not is_volume_name(name):
        raise absent(name)
    with suppress(FileNotFoundError):
        return _read(name)
    if not os.path.isdir(folder(name)):
        raise absent(name)
    try:
        return _read(name)  # a volume appears whole, but may have appeared since the first look
    except FileNotFoundError:
        raise records.UnreadableError(f"the volume {name} is damaged: {RECORD} is missing", hint=_kept(name)) from None


def _read(name: str) -> NamedVolume:
    what = f"the volume {name}"
    try:
        values = records.checked_format(records.read(os.path.join(folder(name), RECORD), what), what)
        found: NamedVolume = records.build(NamedVolume, {**values, "name": name}, what, {})
        return found
    except records.UnreadableError as error:
        error.hint = error.hint or _kept(name)
        raise


def _kept(name: str) -> str:
    return f"its files are in {data(name)}; `vmctl volume rm -f {name}` removes it"


def absent(name: str) -> NotFoundError:
    """Return the error for a name that no volume has."""
    return NotFoundError(f"there is no volume {name[:80]}", hint="`vmctl volume ls` lists them")


def names() -> list[str]:
    """Return the names of all volumes, sorted."""
    try:
        return sorted(filter(is_volume_name, os.listdir(paths.volumes_root())))
    except FileNotFoundError:
        return []


def users(name: str) -> list[str]:
    """Return the names of the instances that use a volume, also of those that have ended."""
    return leases.users(leases.volume(name))


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of a volume. Raises NotFoundError."""
    try:
        fd = os.open(folder(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise absent(name) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not _is_still(fd, folder(name)):
            raise absent(name)  # it was removed while this command waited
        yield
    finally:
        os.close(fd)


def _is_still(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def take(name: str, user: leases.User) -> NamedVolume:
    """Give an instance a lease of a volume, which is created if it does not exist; repeatable. Raises OSError."""
    while True:
        found = create(name)
        with suppress(NotFoundError), locked(name):
            leases.take(leases.volume(name), user)
            return found


def remove(name: str, *, force: bool = False) -> None:
    """Remove a volume with its files.

    Raises StateError if an instance uses it, UnreadableError if its record is damaged, NotFoundError; with `force` only
    the first.
    """
    try:
        find(name)
        _remove(name)
    except NotFoundError:
        if not force:
            raise
    except records.UnreadableError:
        if not force:
            raise
        _remove(name)


def _remove(name: str) -> None:
    with locked(name):
        if found := users(name):
            raise StateError(
                f"the volume {name} is used by {', '.join(found)}",
                hint=f"`vmctl rm {found[0]}` removes the instance; instances that have ended use it too",
            )
        part = _unfinished(name)
        os.rename(folder(name), part)
    filetree.remove_tree(part)
