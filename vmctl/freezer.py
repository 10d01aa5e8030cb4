"""Hold every process of an instance's cgroup for a moment, so that what they write does not change meanwhile.

v2: `cgroup.freeze` of the group itself (cgroup-v2.rst). v1 has a controller of its own for it (freezer-subsystem.rst):
the processes are moved into a group of its hierarchy, and back into the root of it afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl.errors import NotFoundError, UnavailableError, VmctlError
from vmctl.instance import Instance
from vmctl.linux import kernelfile
from vmctl.linux.cgroups import PARENT, Cgroup
from vmctl.named import NamedTuple

KIND = "frozen"  # of the journal's entry

TIMEOUT_S = 10.0


class Group(NamedTuple):
    """The group that is frozen, and how its files are called in this version of cgroups."""

    folder: str
    own: bool  # v1: made for this, and removed afterwards
    switch: str
    on: str
    off: str
    progress: str  # says when all are held
    held: str

    def is_held(self) -> bool:
        """Return whether every process in it is held."""
        with open(os.path.join(self.folder, self.progress), encoding="ascii") as file:
            return self.held in file.read().splitlines()

    def turn(self, value: str) -> None:
        """Write to the switch. Raises OSError."""
        kernelfile.write(os.path.join(self.folder, self.switch), value)


@contextmanager
def frozen(inst: Instance) -> Iterator[None]:
    """Hold the processes of an instance. Raises UnavailableError where no freezer is mounted, VmctlError.

    They go on with the end of this block, and with the end of this process however it ends: a guard sees to that.
    One command at a time holds them, a second one waits for the first.
    """
    group = find(inst.cgroup)
    with _alone(inst):
        inst.journal.record(KIND, name=inst.cgroup)  # should the guard be killed, too
        try:
            with _guard(group):
                _gather(group, Cgroup(inst.cgroup))
                group.turn(group.on)
                _wait_until_held(group, inst.name)
                yield
        finally:
            with suppress(FileNotFoundError):  # the instance has been removed meanwhile
                inst.journal.strike(KIND, name=inst.cgroup)


def find(name: str) -> Group:
    """Return how the processes of an instance can be held. Raises UnavailableError where they cannot."""
    cgroup = Cgroup(name)
    if cgroup.layout.version == 2:
        return Group(cgroup.folders["memory"], False, "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1")
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for _, target, fstype, options, *_ in (line.split(" ") for line in file):
            if fstype == "cgroup" and "freezer" in options.split(","):
                folder = f"{target}/{PARENT}/{name}"
                return Group(folder, True, "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN")
    raise UnavailableError(f"{name} cannot be paused: no cgroup freezer is mounted", hint="--no-pause does without")


@contextmanager
def _alone(inst: Instance) -> Iterator[None]:
    """Hold a lock of the instance's for this alone: the other one belongs to an attached run for as long as it runs."""
    try:
        fd = os.open(inst.path("paused"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise NotFoundError(f"there is no instance {inst.name}", hint="`vmctl ps -a` lists them") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def thaw(group: Group) -> None:
    """Let the processes of a group go on; nothing happens where there is none. Raises OSError."""
    with suppress(FileNotFoundError):
        group.turn(group.off)
        if group.own:
            _dissolve(group.folder)


def _gather(group: Group, cgroup: Cgroup) -> None:
    """v1: move all processes into the group, and those that they made meanwhile."""
    if not group.own:
        return
    os.makedirs(group.folder, exist_ok=True)
    while missing := set(cgroup.pids()) - _pids(group.folder):
        for pid in missing:
            with suppress(ProcessLookupError):
                kernelfile.write(f"{group.folder}/cgroup.procs", str(pid))


def _dissolve(folder: str) -> None:
    """Move the processes of a v1 group into its hierarchy's root, and remove the group; its parent goes with it."""
    root = os.path.dirname(os.path.dirname(folder))
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        for pid in _pids(folder):
            with suppress(ProcessLookupError):
                kernelfile.write(f"{root}/cgroup.procs", str(pid))
        try:
            os.rmdir(folder)
            break
        except OSError as error:  # one that is just ending, or that a commit has gathered meanwhile, is in it
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.001)
    with suppress(OSError):  # another instance's group is in it
        os.rmdir(os.path.dirname(folder))


def _pids(folder: str) -> set[int]:
    with open(f"{folder}/cgroup.procs", encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}


def _wait_until_held(group: Group, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not group.is_held():
        if time.monotonic() > deadline:
            raise VmctlError(f"{name} could not be paused within {TIMEOUT_S:g} s", hint="--no-pause does without")
        time.sleep(0.001)


@contextmanager
def _guard(group: Group) -> Iterator[None]:
    """Thaw the group at the end of this block; where this process ends before, a child of it does that."""
    alive, ours = os.pipe()
    child = os.fork()
    if child == 0:
        _thaw_after(alive, ours, group)
    os.close(alive)
    try:
        yield
    finally:
        thaw(group)
        os.close(ours)
        os.waitpid(child, 0)


def _thaw_after(alive: int, ours: int, group: Group) -> None:
    """Wait for the end of the parent, or its word, and thaw; never returns."""
    try:
        os.setsid()  # out of reach of a terminal's Ctrl-C
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        os.close(ours)
        for fd in range(3):  # or whoever reads our output would wait for it
            os.close(fd)
        os.read(alive, 1)
        thaw(group)
    finally:
        os._exit(0)
