"""What killed commands and crashed hosts have left below this state root, and its removal: `vmctl doctor --fix`.

Only objects are listed that are provably ours and have no owner: an instance's folder is made before any other object
of it, and removed after them, so an object whose recorded owner has no folder belongs to nobody. The objects are listed
before the instances: a new instance's objects cannot be mistaken for orphans. Objects of instances, also of failed
ones, are not orphans: `rm` removes those.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from vmctl import leases, paths
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.instances.folder import Home
from vmctl.linux import cgroups, filetree, locks, mountinfo, processes, usernamespace
from vmctl.named import NamedTuple
from vmctl.needs import Orphan
from vmctl.net import catalog, switch
from vmctl.volumes import store as volumes

_ID = re.compile(r"[0-9a-f]{8}")


class Known(NamedTuple):
    """The instances of this state root."""

    names: frozenset[str]
    ids: frozenset[str] | None  # None if an instance cannot be read: then its id is not known

    def owns(self, directory: str) -> bool:
        """Return whether a folder is one of an instance, or of another state root, about which nothing is known."""
        return os.path.dirname(directory) != paths.instances_root() or os.path.basename(directory) in self.names


Found = Callable[[Known], list[Orphan]]


def find() -> list[Orphan]:
    """Return the orphans in the order of their removal. Nothing is changed."""
    seen = [_processes(), _cgroups(), _mounts(), _addresses(), _run_folders(), _ranges(), _leases(), _unfinished()]
    known = _known()
    return [orphan for found in seen for orphan in found(known)]


def _known() -> Known:
    names = instance.names()
    try:
        ids = frozenset(instance.state_of(name).id for name in names)
    except VmctlError:
        return Known(frozenset(names), None)
    return Known(frozenset(names), ids)


def _processes() -> Found:
    """Look for supervisors and forwarders: their command lines, or error logs, are in the folder of their instance."""
    seen = [(pid, processes.start_time(pid), owner) for pid in _pids() if (owner := _owner_of(pid))]

    def found(known: Known) -> list[Orphan]:
        return [
            Orphan("process", f"{pid}, of {os.path.basename(owner)}", partial(_end, pid, start))
            for pid, start, owner in seen
            if not known.owns(owner) and processes.alive(pid, start)
        ]

    return found


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _owner_of(pid: int) -> str:
    """Return the folder of the instance that a process of vmctl serves, "" for any other process."""
    words = processes.command(pid)
    candidates = []
    if any("containers.supervisor" in word for word in words):
        candidates = words
    elif any("forwarder" in word for word in words):
        with suppress(OSError):
            candidates = [os.readlink(f"/proc/{pid}/fd/2")]
    root = paths.instances_root() + "/"
    below = (word.removeprefix(root) for word in candidates if word.startswith(root))
    return next((root + path.partition("/")[0] for path in below), "")


def _end(pid: int, start: int | None) -> None:
    if not processes.end(pid, start):
        raise VmctlError(f"process {pid} is still running after SIGKILL")


def _cgroups() -> Found:
    """Look for groups that are marked with a folder of ours."""
    seen = [(name, mark) for name, mark in cgroups.marked().items() if _ID.fullmatch(name[-8:])]

    def found(known: Known) -> list[Orphan]:
        return [
            Orphan("cgroup", name, partial(_end_group, name))
            for name, owner in seen
            if not known.owns(owner)
            or (os.path.dirname(owner) == paths.instances_root() and known.ids and name[-8:] not in known.ids)
        ]

    return found


def _end_group(name: str) -> None:
    from vmctl.instances import freezer

    with suppress(VmctlError, OSError):  # on v1 a frozen process ends only when it is thawed
        if (group := freezer.find(name)) is not None:
            freezer.thaw(group)
    cgroups.Cgroup(name).remove()


def _mounts() -> Found:
    """Look for mounts in run folders and in unfinished folders."""
    seen = mountinfo.below(paths.run_root(), paths.instances_root())

    def found(known: Known) -> list[Orphan]:
        return [Orphan("mount", path, partial(mountinfo.unmount_all, path)) for path in seen if _is_orphan(path, known)]

    return found


def _is_orphan(mount: str, known: Known) -> bool:
    run, instances = (os.path.realpath(path) + "/" for path in (paths.run_root(), paths.instances_root()))
    if mount.startswith(instances):
        name = mount.removeprefix(instances).partition("/")[0]
        return name.startswith(".") and not _is_held(os.path.join(paths.instances_root(), name))
    identity = mount.removeprefix(run).partition("/")[0]
    return bool(_ID.fullmatch(identity)) and known.ids is not None and identity not in known.ids


def _is_held(folder: str) -> bool:
    try:
        with locks.held_at_once(folder):
            return False
    except OSError:
        return True


def _run_folders() -> Found:
    seen = [name for name in _listing(paths.run_root()) if _ID.fullmatch(name)]

    def found(known: Known) -> list[Orphan]:
        return [
            Orphan("run folder", path, partial(filetree.remove_tree, path))
            for name in seen
            if known.ids is not None and name not in known.ids
            for path in [os.path.join(paths.run_root(), name)]
        ]

    return found


def _addresses() -> Found:
    """Look for addresses in use; the last one that is given back takes the switch along."""
    folder = switch.folder()
    seen = {name: os.readlink(os.path.join(folder, name)) for name in _listing(folder) if name[0].isdigit()}
    has_switch = os.path.lexists(switch.path())

    def found(known: Known) -> list[Orphan]:
        orphans = [
            Orphan("address", address, partial(_clear, address))
            for address, owner in seen.items()
            if not known.owns(owner)
        ]
        if has_switch and len(orphans) == len(seen):
            orphans.append(Orphan("network", switch.path(), _remove_switch))
        return orphans

    return found


def _clear(address: str) -> None:
    catalog.containing(address).clear(address)


def _remove_switch() -> None:
    with switch.locked() as folder:
        if next(switch.in_use(folder), None) is None:
            switch.remove()


def _ranges() -> Found:
    from vmctl import ids

    seen = ids.owners() if usernamespace.is_host_root() and os.path.isdir(ids.FOLDER) else {}

    def found(known: Known) -> list[Orphan]:
        return [
            Orphan("user ids", str(first), partial(_if_gone, owner, partial(ids.give_back, owner, {"first": first})))
            for first, owner in seen.items()
            if not known.owns(owner)
        ]

    return found


def _leases() -> Found:
    folder = leases.folder()
    seen = {}
    for name in _listing(folder):
        with suppress(OSError):
            seen[name] = os.readlink(os.path.join(folder, name))

    def found(known: Known) -> list[Orphan]:
        return [
            Orphan("lease", name, partial(_if_gone, owner, partial(leases.undo, {"name": name})))
            for name, owner in seen.items()
            if not known.owns(owner)
        ]

    return found


def _unfinished() -> Found:
    """Look for instances and volumes that killed commands were making or removing, and for half-written files."""
    root = paths.instances_root()
    of_volumes = volumes.unfinished()
    seen = [name for name in _listing(root) if name.startswith(".") and not _is_held(os.path.join(root, name))]
    files = [
        os.path.join(folder, name)
        for folder in _folders_of_records()
        for name in _listing(folder)
        if filetree.is_abandoned(name)
    ]

    def found(known: Known) -> list[Orphan]:
        folders = [Orphan("unfinished folder", name, instance.remove_unfinished) for name in seen]
        folders += [Orphan("unfinished volume", path, volumes.remove_unfinished) for path in of_volumes]
        return folders + [Orphan("half-written file", path, partial(_unlink, path)) for path in files]

    return found


def _folders_of_records() -> Iterator[str]:
    yield from (paths.state_root(), paths.cache_root(), catalog.folder())
    yield from (Home(name, "").directory for name in instance.names())
    yield from map(volumes.folder, volumes.names())
    stacks = os.path.join(paths.state_root(), "stacks")
    yield from (os.path.join(stacks, name) for name in _listing(stacks))


def _if_gone(owner: str, remove: Callable[[], object]) -> None:
    """Remove an object unless a new instance has the folder of its owner by now."""
    if not os.path.lexists(owner):
        remove()


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _listing(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
