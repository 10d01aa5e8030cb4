"""All objects that vmctl could leave on a host, read from the kernel, to compare them before and after a test.

Other programs may run meanwhile. So if possible only objects of this VMCTL_ROOT, or of instances named `leak...`, are
compared. Links, routing rules and the firewall are compared completely: none of them may change.
"""

import os
import socket
import time
from contextlib import suppress
from typing import NamedTuple

from vmctl import leases, paths
from vmctl.instances import eventlog
from vmctl.linux import cgroups, delegation
from vmctl.net import switch
from vmctl.programs import run, which
from vmctl.stacks import record

_MOMENT_S = 10.0
PREFIX = f"leak{os.getpid()}"  # of the instances of this run: others may run tests at the same time


class HostState(NamedTuple):
    """What there is now."""

    mounts: frozenset
    processes: frozenset
    cgroups: frozenset
    links: frozenset
    switch_links: frozenset
    rules: tuple
    loop_devices: frozenset
    files: frozenset


def host_state():
    """Return the state of the host, in a test that is marked `alone`."""
    assert "PYTEST_XDIST_WORKER" not in os.environ, "another test changes the host meanwhile; mark this one `alone`"
    return HostState(mounts(), _processes(), _cgroups(), _links(), _switch_links(), _rules(), _loop_devices(), files())


def left_behind(before):
    """Return what there is more, or less, than before: empty when all is as it was."""
    after = host_state()
    changed = {}
    for name in HostState._fields:
        old, new = set(getattr(before, name)), set(getattr(after, name))
        if old != new:
            changed[name] = {"more": sorted(new - old), "less": sorted(old - new)}
    return changed


def stays_behind(before):
    """Return what is left after commands that were killed, without what ends by itself in a moment.

    The process that waits to become pasta, spawned and not yet recorded, ends with the cable at which it waits: the
    kernel removes it some time after the last use of its network namespace.
    """
    deadline_s = time.monotonic() + _MOMENT_S
    while (changed := left_behind(before)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return changed


def _root():
    return os.environ["VMCTL_ROOT"]


def mounts():
    """Return what is mounted below this VMCTL_ROOT."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return frozenset(line.split(" ", 4)[4].strip() for line in file if _root() in line)


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:  # gone, or a thread of the kernel
        return ""


def _processes():
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        command, environment = _read(f"/proc/{name}/cmdline"), _read(f"/proc/{name}/environ")
        ours = _root() in command or f"VMCTL_ROOT={_root()}" in environment
        if ours or f"/{delegation.PARENT}/{PREFIX}" in _read(f"/proc/{name}/cgroup"):
            found.add(f"{name}: {command.replace(chr(0), ' ')[:200]}")
    return frozenset(found)


def _cgroups():
    parents = {f"{mount}/{delegation.PARENT}" for mount in cgroups.hierarchy().mounts.values()}
    found = set()
    for parent in parents:
        with suppress(FileNotFoundError):  # the last instance of another test may remove it at any moment
            found |= {os.path.join(parent, name) for name in os.listdir(parent) if name.startswith(PREFIX)}
    return frozenset(found)


def _links():
    return frozenset(name for _, name in socket.if_nameindex())


def _switch_links():
    if not switch.exists():
        return frozenset()
    return switch.inside(_links)


def _rules():
    questions = [["ip", "rule"], ["ip", "route", "show", "table", "all"], ["nft", "list", "ruleset"], ["iptables-save"]]
    answers = (run(question, check=False)[1] for question in questions if which(question[0]))
    return tuple(line for answer in answers for line in answer.splitlines() if not line.startswith(("#", ":")))


def _loop_devices():
    devices = (name for name in os.listdir("/sys/block") if name.startswith("loop"))
    return frozenset(filter(None, (_read(f"/sys/block/{name}/loop/backing_file").strip() for name in devices)))


def files():
    """Return what is in this VMCTL_ROOT, but the images and what is kept on purpose."""
    kept = {paths.images_root(), paths.cache_root(), os.path.join(paths.run_root(), "layers", "lock")}
    kept |= {eventlog.path(), f"{eventlog.path()}.1"}
    found = set()
    for folder, folders, names in os.walk(_root()):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in kept]
        found |= {os.path.join(folder, name) for name in (*folders, *names)}
    # permanent folders; that of the switch is its lock, which is removed with the next instance that had a link
    standing = {paths.run_root(), os.path.join(paths.run_root(), "layers"), paths.instances_root()}
    standing |= {leases.folder(), switch.folder(), record.root()}
    return frozenset(found - kept - standing)


class OwnState(NamedTuple):
    """What there is of one VMCTL_ROOT alone: other tests may run at the same time."""

    mounts: frozenset
    processes: frozenset
    cgroups: frozenset
    files: frozenset


def own_state():
    """Return the mounts, processes and files of this VMCTL_ROOT, and the groups of instances named `leak...`."""
    return OwnState(mounts(), _processes(), _cgroups(), files())
