"""Every host step of a start, with its raw equivalent and why."""

from __future__ import annotations

import os
from collections.abc import Iterator

from containers import identity, idmap, preparation, userns
from containers.launch import Launch
from images.layer import mounts
from images.store import store
from vmctl import paths
from vmctl.backend import Step
from vmctl.linux import syscalls
from vmctl.linux.cgroups import Cgroup
from vmctl.workload import Workload

_WHY = {
    "CLONE_NEWNS": "its own mounts: what it mounts the host does not see",
    "CLONE_NEWPID": "its own process numbers: it is PID 1, and all end with it",
    "CLONE_NEWNET": "its own interfaces, addresses, ports and routes",
    "CLONE_NEWIPC": "its own message queues and shared memory",
    "CLONE_NEWUTS": "its own host name",
    "CLONE_NEWCGROUP": "its own control group as the root of what it sees",
    "CLONE_NEWUSER": "its own user numbers: root inside is nobody outside",
}


def steps(work: Workload, *, namespaced: bool) -> Iterator[Step]:
    """Yield the steps; makes nothing. Raises NotFoundError where the image is missing."""
    image = store.find(work.image)
    layers = [mounts.mount_point(layer.key) for layer in image.layers]
    directory = os.path.join(paths.instances_root(), work.name)
    flags = preparation.namespaces(work) if namespaced else 0
    launch = preparation.launch(work, image, layers, directory, Cgroup(f"{work.name}.ID"), None, flags)
    for layer, target in zip(image.layers, layers, strict=True):
        yield Step("layer", f"mount -t erofs -o ro {layer.path} {target}", "read-only, once per host, shared by all")
    yield from _cgroup(launch, work)
    if flags & syscalls.CLONE_NEWUSER:
        first_id = userns.lowest_free()
        views = idmap.views(launch, layers, os.path.join(paths.run_root(), "ID"), first_id)
        yield from _views(views)
        launch = idmap.in_user_namespace(launch, views, first_id)
    yield from _clone(launch)
    layered = "the layers below, the instance's own folder on top"
    yield Step("root", str(launch.root), layered if launch.first_id is None else "a mount of its own: not locked")
    yield Step("enter", 'pivot_root(".", "."), umount -l .' if flags else "chroot .", "the old root is out of reach")
    for step in launch.steps:
        yield Step("mount", str(step))
    for volume in launch.volumes:
        yield Step("volume", f"mount --bind {'-o ro ' if volume.read_only else ''}{volume.source} {volume.target}")
    for file in launch.files:
        yield Step("file", f"write {file.path} (mode {file.mode:04o}, {len(file.content)} characters)")
    yield from _network(work, flags)
    yield from _identity(launch)
    yield Step("exec", " ".join(launch.process.argv), f"in {launch.process.workdir}; the same program image, no copy")


def _cgroup(launch: Launch, work: Workload) -> Iterator[Step]:
    for folder in sorted(set(launch.cgroup.folders.values())):
        yield Step("cgroup", f"mkdir {folder}", "what the instance uses is counted and limited here")
    for controller, file, value in launch.cgroup.settings(preparation.limits(work)):
        yield Step("limit", f"echo {value} > {os.path.join(launch.cgroup.folders[controller], file)}")


def _views(views: idmap.Views) -> Iterator[Step]:
    for view in (*views.layers, *views.volumes):
        yield Step("owners", str(view), "0 on disk is root inside; what cannot be mapped is nobody's there")
    yield Step("root", str(views.root), "mounted by the host's root: only its overlay knows all that layers can say")


def _clone(launch: Launch) -> Iterator[Step]:
    names = [name for name in _WHY if launch.namespaces & getattr(syscalls, name)]
    for name in names:
        yield Step("clone3", name, _WHY[name])
    if not names:
        yield Step("fork", "clone3(SIGCHLD)", "no namespace: an ordinary process")
    if launch.first_id is not None:
        line = f"{userns.mapping(launch.first_id)} > /proc/PID/"
        yield Step("ids", f"echo {line}uid_map; echo {line}gid_map", "a range of the host's ids that nobody else has")


def _network(work: Workload, flags: int) -> Iterator[Step]:
    if not flags & syscalls.CLONE_NEWNET:
        yield Step("network", "none of its own", "it shares the host's interfaces and ports")
    elif work.network == "bridge":
        yield Step("network", "ip link add type veth, one end on the bridge, the other eth0 inside", "a virtual cable")
    else:
        yield Step("network", "ip link set lo up", "nothing but the loopback")
    for port in work.ports:
        yield Step("port", str(port), "a forwarder listens on the host and connects inside")


def _identity(launch: Launch) -> Iterator[Step]:
    if launch.capabilities is None:
        return
    kept = [name for number, name in enumerate(identity.CAPABILITIES) if launch.capabilities >> number & 1]
    yield Step("capabilities", f"keep {', '.join(kept)}", "root inside has only these of root's powers")
    yield Step("no_new_privs", "prctl(PR_SET_NO_NEW_PRIVS, 1)", "setuid programs gain nothing")
    if launch.seccomp:
        count = len(launch.seccomp) // 8
        yield Step("seccomp", f"seccomp filter of {count} instructions", "calls that a container does not need fail")
    user = launch.process.user or "0:0"
    yield Step("user", f"setresuid, setresgid: {user}", "who it is")
