"""What vmctl has on this host below one state root; empty between two cycles."""

import os
import time
from contextlib import suppress

from vmctl import ids, leases, paths
from vmctl.linux import cgroups, delegation
from vmctl.snapshots import record

PREFIX = f"soak{os.getpid():x}-"  # of the names of instances; others may soak this host at the same time
_SETTLE_S = 10.0  # the kernel takes its time to remove a namespace with its links


def left(root):
    """Return everything that is there, as lines of text: none if the host is as before."""
    deadline = time.monotonic() + _SETTLE_S
    while (found := _found(root)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def processes(root):
    """Return (pid, command) of each process that belongs to the state root, but this one and those that started it."""
    above, pid = set(), os.getpid()
    while pid > 1:
        above.add(pid)
        pid = int(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        if int(name) not in above:
            command = _read(f"/proc/{name}/cmdline").replace("\0", " ")
            serves = f"VMCTL_NAMES={root}/" in _read(f"/proc/{name}/environ")
            if root in command or serves or f"/{delegation.PARENT}/{PREFIX}" in _read(f"/proc/{name}/cgroup"):
                found.append((int(name), command[:120]))
    return found


def _found(root):
    return sorted([*_mounts(root), *_processes(root), *_cgroups(), *_files(), *_loops(root), *_ids(root)])


def _processes(root):
    return (f"process {pid}: {command}" for pid, command in processes(root) if "vmctl-holder" not in command)


def _mounts(root):
    kept = f" {paths.run_root()} "  # an ordinary user's tmpfs, which lasts as long as its namespaces
    holders = [str(pid) for pid, command in processes(root) if "vmctl-holder" in command]
    lines = [line for pid in ("self", *holders) for line in _read(f"/proc/{pid}/mountinfo").splitlines()]
    return [f"mount {line.split(' ')[4]}" for line in lines if root in line and kept not in line]


def _cgroups():
    found = []
    with suppress(Exception):
        for mount in set(cgroups.hierarchy().mounts.values()):
            for folder, _, _ in os.walk(f"{mount}/{delegation.PARENT}"):
                if os.path.basename(folder).startswith(PREFIX):
                    found.append(f"cgroup {folder}")
    return found


def _files():
    run, state = paths.run_root(), paths.state_root()
    permanent = {os.path.join(run, "layers"), os.path.join(run, "net")}
    for top in (paths.instances_root(), paths.volumes_root(), leases.folder(), record.root(), run):
        for folder, folders, names in os.walk(top):
            found = {os.path.join(folder, name) for name in (*folders, *names)}
            yield from (f"file {path.removeprefix(state)}" for path in found - permanent)


def _loops(root):
    for name in os.listdir("/sys/block"):
        if name.startswith("loop") and root in _read(f"/sys/block/{name}/loop/backing_file"):
            yield f"loop device {name}"


def _ids(root):
    with suppress(OSError):
        for name in os.listdir(ids.FOLDER):
            if os.readlink(os.path.join(ids.FOLDER, name)).startswith(root):
                yield f"ids {name}"


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""
