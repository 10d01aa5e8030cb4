"""The steps of a start on the host, each with its raw command and the reason, for `vmctl up --explain`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from containers import disk, identity, preparation, trees
from containers.launch import Launch
from images.layer import mounts
from images.store import store
from vmctl import ids, paths, userns
from vmctl.backend import Step
from vmctl.linux import syscalls
from vmctl.linux.cgroups import Cgroup
from vmctl.spec.workload import Workload

_WHY = {
    "CLONE_NEWNS": "its own mounts: the host does not see them",
    "CLONE_NEWPID": "its own pids: it is PID 1, and all other processes end with it",
    "CLONE_NEWNET": "its own interfaces, addresses, ports and routes",
    "CLONE_NEWIPC": "its own message queues and shared memory",
    "CLONE_NEWUTS": "its own host name",
    "CLONE_NEWCGROUP": "it sees its own cgroup as the root",
    "CLONE_NEWUSER": "its own user ids: root inside is an unprivileged user outside",
}


def steps(work: Workload, *, namespaced: bool) -> Iterator[Step]:
    """Yield the steps; changes nothing. Raises NotFoundError if the image is missing."""
    image = store.find(work.image)
    layers = [mounts.mount_point(layer.key) for layer in image.stack]
    directory = os.path.join(paths.instances_root(), work.name)
    flags = preparation.namespaces(work) if namespaced else 0
    launch = preparation.launch(work, image, layers, directory, Cgroup(f"{work.name}.ID"), (), flags)
    for layer, target in zip(image.stack, layers, strict=True):
        yield Step(
            "layer",
            f"mount -t erofs -o ro,nosuid,nodev {layer.path} {target}",
            "read-only, mounted once per host, shared",
        )
    yield from _disk(work, directory)
    yield from _cgroup(launch, work)
    if flags & syscalls.CLONE_NEWUSER:
        first_id = ids.FIRST
        launch = launch._replace(first_id=first_id)
        for command in trees.commands([*layers, *(volume.source for volume in launch.volumes)], first_id):
            yield Step("owners", command, "uid 0 on disk is root inside; ids that cannot be mapped are `nobody` inside")
    yield from _clone(launch)
    yield Step("root", str(launch.root), "the layers below, the instance's writable folder on top")
    yield Step("enter", 'pivot_root(".", "."), umount -l .' if flags else "chroot .", "the old root is unreachable")
    for step in launch.steps:
        yield Step("mount", str(step))
    for one in launch.tmpfs:
        yield Step("memory", f"mount -t tmpfs -o {one.options()} tmpfs {one.target}")
    for volume in launch.volumes:
        options = f"{'ro,' if volume.read_only else ''}nosuid,nodev"
        yield Step("volume", f"mount --rbind -o {options} {volume.source} {volume.target}")
    for file in launch.files:
        yield Step("file", f"write {file.path} (mode {file.mode:04o}, {len(file.content)} bytes)")
    yield from _network(work, flags)
    yield from _identity(launch)
    yield Step("exec", " ".join(launch.process.argv), f"in {launch.process.workdir}")


def _disk(work: Workload, directory: str) -> Iterator[Step]:
    size_bytes = work.resources.disk_bytes
    if size_bytes is not None:
        file = os.path.join(directory, "disk.img")
        raw = f"truncate -s {size_bytes} {file}\n{' '.join(disk.command(file))}\n"
        raw += f"mount -o loop,nosuid,nodev,discard {file} {directory}/disk"
        yield Step("disk", raw, "the writable layer is in a file system of the size that is asked for")


def _cgroup(launch: Launch, work: Workload) -> Iterator[Step]:
    for folder in sorted(set(launch.cgroup.folders.values())):
        yield Step("cgroup", f"mkdir {folder}", "the instance's resources are counted and limited here")
    for controller, file, value in launch.cgroup.settings(preparation.limits(work)):
        if controller in launch.cgroup.folders:  # of an ordinary user, only a default can be without one
            yield Step("limit", f"echo {value} > {os.path.join(launch.cgroup.folders[controller], file)}")


def _clone(launch: Launch) -> Iterator[Step]:
    names = [name for name in _WHY if launch.namespaces & getattr(syscalls, name)]
    for name in names:
        yield Step("clone3", name, _WHY[name])
    if not names:
        yield Step("fork", "clone3(SIGCHLD)", "no namespace: an ordinary process")
    if launch.first_id is not None:
        line = f"{userns.mapping(launch.first_id)} > /proc/PID/"
        yield Step("ids", f"echo {line}uid_map; echo {line}gid_map", "a range of the host's ids that no one else uses")


def _network(work: Workload, flags: int) -> Iterator[Step]:
    if not flags & syscalls.CLONE_NEWNET:
        yield Step("network", "no network namespace", "it shares the host's interfaces and ports")
    elif work.joined():
        for number, one in enumerate(work.joined()):
            raw = f"ip link add type veth, one end on the bridge of {one.name}, the other eth{number} inside"
            yield Step("network", raw, "a virtual cable")
    else:
        yield Step("network", "ip link set lo up", "only the loopback interface")
    for port in work.ports:
        yield Step("port", str(port), "a forwarder listens on the host and connects inside")


def _identity(launch: Launch) -> Iterator[Step]:
    if launch.capabilities is None:
        return
    kept = [name for number, name in enumerate(identity.CAPABILITIES) if launch.capabilities >> number & 1]
    yield Step("capabilities", f"keep {', '.join(kept)}", "root inside has only these privileges")
    yield Step("no_new_privs", "prctl(PR_SET_NO_NEW_PRIVS, 1)", "setuid programs gain no privileges")
    if launch.seccomp:
        count = len(launch.seccomp) // 8
        yield Step("seccomp", f"seccomp filter of {count} instructions", "system calls not needed in a container fail")
    user = launch.process.user or "0:0"
    yield Step("user", f"setresuid, setresgid: {user}", "the user of the process")
