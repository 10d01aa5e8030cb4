"""Freeze all processes of an instance for a moment, so that its files do not change meanwhile.

v2: `cgroup.freeze` of the instance's group (cgroup-v2.rst). v1 has a separate controller (freezer-subsystem.rst): the
processes are moved into a group of its hierarchy, and afterwards into the root group of that hierarchy. That is for
root only (v1 moves no process of another uid); an ordinary user stops the processes by signals (linux/stopped.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from vmctl.errors import NotFoundError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.light import signal
from vmctl.linux import delegation, kernelfile, usernamespace
from vmctl.linux.cgroups import Cgroup
from vmctl.linux.stopped import Workload
from vmctl.named import NamedTuple

KIND = "frozen"  # kind of the journal entry
PAUSED = "paused"  # the file with the lock; not empty: `vmctl pause` has paused the instance

TIMEOUT_S = 10.0


class Group(NamedTuple):
    """A group that can be frozen, with the names and values of its files in this version of cgroups."""

    folder: str
    temporary: bool  # v1: created for the freeze, removed afterwards
    control_file: str
    freeze: str  # written to `control_file`
    thaw: str
    state_file: str
    frozen: str  # the line of `state_file` once all processes are frozen

    def is_frozen(self) -> bool:
        """Return whether all processes in the group are frozen."""
        with open(os.path.join(self.folder, self.state_file), encoding="ascii") as file:
            return self.frozen in file.read().splitlines()

    def request(self, value: str) -> None:
        """Write `freeze` or `thaw` to the control file. Raises OSError."""
        kernelfile.write(os.path.join(self.folder, self.control_file), value)


@contextmanager
def frozen(inst: Instance) -> Iterator[None]:
    """Freeze the processes of an instance. Raises VmctlError.

    They are thawed at the end of this block, and when this process ends, even by SIGKILL: a guard process does it.
    One command at a time can freeze an instance; a second one waits for the first.
    """
    with locked(inst):
        if inst.is_paused():  # by `vmctl pause`, and stays so
            yield
            return
        inst.journal.record(KIND, name=inst.cgroup)  # in case the guard is killed too
        try:
            with _guard(partial(_thaw, inst)):
                _freeze(inst)
                yield
        finally:
            with suppress(FileNotFoundError):  # the instance has been removed meanwhile
                inst.journal.strike(KIND, name=inst.cgroup)


def pause(inst: Instance) -> None:
    """Freeze the processes of an instance until `resume`; the caller holds the lock. Raises VmctlError."""
    inst.journal.record(KIND, name=inst.cgroup)
    try:
        _freeze(inst)
    except BaseException:
        resume(inst)
        raise


def resume(inst: Instance) -> None:
    """Thaw the processes of an instance; repeatable. The caller holds the lock. Raises OSError."""
    _thaw(inst)
    inst.journal.strike(KIND, name=inst.cgroup)


def _freeze(inst: Instance) -> None:
    group = find(inst.cgroup)
    if group is None:
        if not _stopped(inst).stop(TIMEOUT_S):
            raise _not_paused(inst.name)
        return
    _gather(group, Cgroup(inst.cgroup))
    group.request(group.freeze)
    _wait_until_frozen(group, inst.name)


def _thaw(inst: Instance) -> None:
    group = find(inst.cgroup)
    if group is None:
        _stopped(inst).resume()
    else:
        thaw(group)


def _stopped(inst: Instance) -> Workload:
    return Workload(inst.state.pid or 0, os.path.realpath(inst.path("rootfs")))


def find(name: str) -> Group | None:
    """Return the group that freezes the cgroup `name`, None if this user has no freezer."""
    cgroup = Cgroup(name)
    if cgroup.layout.version == 2 and cgroup.folders:
        return Group(cgroup.folders["memory"], False, "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1")
    if not usernamespace.is_host_root():
        return None
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for _, target, fstype, options, *_ in (line.split(" ") for line in file):
            if fstype == "cgroup" and "freezer" in options.split(","):
                folder = f"{target}/{delegation.PARENT}/{name}"
                return Group(folder, True, "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN")
    return None


@contextmanager
def locked(inst: Instance) -> Iterator[None]:
    """Hold a lock that is for freezing only: an attached run holds the instance's own lock as long as it runs."""
    try:
        fd = os.open(inst.path(PAUSED), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise NotFoundError(f"there is no instance {inst.name}", hint="`vmctl ps -a` lists them") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def thaw(group: Group) -> None:
    """Thaw the processes of a group; does nothing if the group does not exist. Raises OSError."""
    with suppress(FileNotFoundError):
        group.request(group.thaw)
        if group.temporary:
            _dissolve(group.folder)


def _gather(group: Group, cgroup: Cgroup) -> None:
    """On v1, move all processes into the group, also those that they create meanwhile."""
    if not group.temporary:
        return
    os.makedirs(group.folder, exist_ok=True)
    while missing := set(cgroup.pids()) - _pids(group.folder):
        for pid in missing:
            with suppress(ProcessLookupError):
                kernelfile.write(f"{group.folder}/cgroup.procs", str(pid))


def _dissolve(folder: str) -> None:
    """Move the processes of a v1 group into the root of its hierarchy, and remove the group and its empty parent."""
    root = os.path.dirname(os.path.dirname(folder))
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        for pid in _pids(folder):
            with suppress(ProcessLookupError):
                kernelfile.write(f"{root}/cgroup.procs", str(pid))
        try:
            os.rmdir(folder)
            break
        except OSError as error:  # it contains a process that is exiting, or that another commit has moved here
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.001)
    with suppress(OSError):  # it contains the group of another instance
        os.rmdir(os.path.dirname(folder))


def _pids(folder: str) -> set[int]:
    with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}


def _wait_until_frozen(group: Group, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not group.is_frozen():
        if time.monotonic() > deadline:
            raise _not_paused(name)
        time.sleep(0.001)


def _not_paused(name: str) -> VmctlError:
    return VmctlError(f"{name} could not be paused within {TIMEOUT_S:g} s", hint="use --no-pause")


@contextmanager
def _guard(thaw: Callable[[], None]) -> Iterator[None]:
    """Call `thaw` at the end of this block; if this process ends earlier, its child does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _thaw_after_parent(reader, writer, thaw)
    os.close(reader)
    try:
        yield
    finally:
        thaw()
        os.close(writer)
        os.waitpid(child, 0)


def _thaw_after_parent(reader: int, writer: int, thaw: Callable[[], None]) -> None:
    """Wait until the parent closes its end of the pipe or exits, and call `thaw`; never returns."""
    try:
        os.setsid()  # Ctrl-C in the terminal must not reach this process
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        os.close(writer)
        for fd in range(3):  # a reader of the parent's output would otherwise wait for this process
            os.close(fd)
        os.read(reader, 1)
        thaw()
    finally:
        os._exit(0)
