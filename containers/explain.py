"""The steps of a start on the host, as lines that can be typed, for `vmctl up --explain`; those inside: byhand.py.

The lines use a folder `$W`. The process `$PID` has the namespaces until the workload runs in them; a start of vmctl
needs none, because one clone3(2) makes process and namespaces.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from containers import byhand as inner
from containers import disk, preparation, trees
from containers.launch import Launch
from images.layer import mounts
from images.store import store
from images.store.image import Image
from vmctl import byhand, ids, net, userns
from vmctl.instances.folder import Home
from vmctl.linux import commands, syscalls, usernamespace
from vmctl.linux.cgroups import Cgroup
from vmctl.net import Link
from vmctl.spec import rules
from vmctl.spec.workload import Workload
from vmctl.steps import Step

_WHY = {
    "CLONE_NEWNS": "its own mounts: the host does not see them",
    "CLONE_NEWPID": "its own pids: it is PID 1, and all other processes end with it",
    "CLONE_NEWNET": "its own interfaces, addresses, ports and routes",
    "CLONE_NEWIPC": "its own message queues and shared memory",
    "CLONE_NEWUTS": "its own host name",
    "CLONE_NEWCGROUP": "it sees its own cgroup as the root",
    "CLONE_NEWUSER": "its own user ids: root inside is an unprivileged user outside",
}
_LATER = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID  # of the process that gets the root
FOLDER = '"$W/rootfs"'
_IDMAP = """\
idmap() { # SOURCE TARGET: mount(8) of util-linux 2.38 has no option for it
    python3 - "$1" "$2" "/proc/$PID/ns/user" <<'END'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    found = libc.syscall(*words)
    if found < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    return found
source, target, namespace = sys.argv[1:]
tree = call(428, -100, source.encode(), 0x80001)  # open_tree(2): AT_FDCWD, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
attributes = (ctypes.c_uint64 * 4)(0x100000, 0, 0, os.open(namespace, os.O_RDONLY))  # MOUNT_ATTR_IDMAP
call(442, tree, b"", 0x1000, attributes, 32)  # mount_setattr(2): AT_EMPTY_PATH
call(429, tree, b"", -100, target.encode(), 4)  # move_mount(2): MOVE_MOUNT_F_EMPTY_PATH
END
}
"""


def steps(work: Workload, *, namespaced: bool) -> Iterator[Step]:
    """Yield the steps; changes nothing. Raises NotFoundError if the image is missing."""
    image = store.find(work.image)
    flags = preparation.namespaces(work) if namespaced else 0
    directory = os.path.join("$W", "own")
    mapped = bool(flags & syscalls.CLONE_NEWUSER)
    layers = [f"{'$W/mapped' if mapped else '$W/layers'}/{number}" for number in range(len(image.stack))]
    if not usernamespace.is_host_root():
        layers = [mounts.mount_point(layer.key) for layer in image.stack]
    launch = preparation.launch(work, image, layers, directory, Cgroup(f"{work.name}.hand"), (), flags)
    launch = launch._replace(first_id=ids.FIRST if mapped else None)
    links = net.preview(work, Home(work.name, "0" * 8)) if flags & syscalls.CLONE_NEWNET else ()
    yield from _image(image)
    yield from _writable(work)
    yield from byhand.cgroup(launch.cgroup, preparation.limits(work))
    yield from _clone(launch)
    yield from _owners(launch, image)
    yield from _volumes(launch)
    yield _root(launch)
    if flags & syscalls.CLONE_NEWNET:
        yield from _network(work, links)
    else:
        shared = f"{name}'s" if (name := rules.neighbour(work)) else "the host's"
        yield Step("network", ":", f"no network namespace: it shares {shared} interfaces and ports", "network")
    yield _enter(launch)
    yield from inner.inside(work, image, launch, links)


def _image(image: Image) -> Iterator[Step]:
    yield byhand.folder('mkdir "$W/rootfs" "$W/layers"')
    for number, layer in enumerate(image.stack):
        target = f'"$W/layers/{number}"'
        raw = f"mkdir {target}\nmount -t erofs -o ro,nosuid,nodev {commands.quote(layer.path)} {target}"
        undo = f"umount {target}"
        yield Step(f"layer {number}", raw, "read-only, mounted once per host, shared", "image", undo=undo)


def _writable(work: Workload) -> Iterator[Step]:
    size_bytes = work.resources.disk_bytes
    if size_bytes is not None:
        raw = f'truncate -s {size_bytes} "$W/disk.img"\n{" ".join(disk.command("$W/disk.img"))}\n'
        raw += 'mkdir "$W/own"\nmount -o loop,nosuid,nodev,discard "$W/disk.img" "$W/own"'
        why = "the writable layer is in a file system of the size that is asked for"
        yield Step("disk", raw, why, "disk", undo='umount "$W/own"')
    raw = 'mkdir -p "$W/own"\nchmod 700 "$W/own"\nmkdir "$W/own/upper" "$W/own/work"'
    yield Step("writable layer", raw, "what the instance changes", "disk")


def _clone(launch: Launch) -> Iterator[Step]:
    names = [name for name in _WHY if launch.namespaces & getattr(syscalls, name)]
    if not names:
        yield Step("fork", ":", "clone3(SIGCHLD), no namespace: an ordinary process", "clone")
        return
    words = commands.kinds(launch.namespaces & ~_LATER)
    raw = f"sh -c '{byhand.join(launch.cgroup)}exec unshare {' '.join(words)} sleep infinity' &\nPID=$!\nexport PID\n"
    raw += 'until [ "$(readlink "/proc/$PID/ns/uts")" != "$(readlink /proc/self/ns/uts)" ]; do sleep 0.01; done'
    why = "\n".join(f"{name}: {_WHY[name]}" for name in names)
    yield Step("clone3", raw, f"in vmctl one call for all; mounts and pids come later here\n{why}", "clone")
    if launch.first_id is not None:
        line = userns.mapping(launch.first_id)
        raw = f'echo {line} > "/proc/$PID/uid_map"\necho {line} > "/proc/$PID/gid_map"'
        yield Step("ids", raw, "a range of the host's ids that no one else uses", "clone")
    raw = f'nsenter --target "$PID" --uts hostname {commands.quote(launch.hostname)}'
    yield Step("host name", raw, "", "clone")


def _owners(launch: Launch, image: Image) -> Iterator[Step]:
    if launch.first_id is None:
        return
    why = "uid 0 on disk is root inside; ids that cannot be mapped are `nobody` inside"
    sources = [f"$W/layers/{number}" for number in range(len(image.stack))]
    sources += [volume.source for volume in launch.volumes]
    shown = "".join(f"\nwith util-linux 2.39: {line}" for line in trees.commands(sources, launch.first_id))
    yield Step("owners", _IDMAP, why + shown, "root")
    for number in range(len(image.stack)):
        target = f'"$W/mapped/{number}"'
        raw = f'mkdir -p {target}\nidmap "$W/layers/{number}" {target}'
        yield Step(f"owners of layer {number}", raw, "", "root", undo=f"umount {target}")
    yield Step("owner of the root", f'chown {launch.first_id}:{launch.first_id} "$W/own/upper"', "", "root")


def _volumes(launch: Launch) -> Iterator[Step]:
    for number, volume in enumerate(launch.volumes if launch.namespaces else ()):
        target, source = f'"$W/volumes/{number}"', commands.quote(volume.source)
        make = "mkdir -p" if os.path.isdir(volume.source) else 'mkdir -p "$W/volumes"; touch'
        raw = f"{make} {target}\n{'mount --rbind' if launch.first_id is None else 'idmap'} {source} {target}"
        yield Step(
            f"volume {number}", raw, "of the host; it gets its place inside later", "mounts", undo=f"umount -R {target}"
        )


def _root(launch: Launch) -> Step:
    root = launch.root
    raw = f'cd "{root.folder}"\nmount -t overlay -o "nosuid,nodev,{root.data}" overlay {FOLDER}\ncd /'
    return Step(
        "root", raw, "the layers below, the instance's writable folder on top", "root", undo=f"umount -R {FOLDER}"
    )


def _network(work: Workload, links: tuple[Link, ...]) -> Iterator[Step]:
    if not links:
        raw = 'nsenter --target "$PID" --net ip link set lo up'
        yield Step("network", raw, "only the loopback interface", "network")
    for number, link in enumerate(links):
        yield from _cable(f"{work.name}-hand{number or ''}", link)
    for port in work.ports:
        raw = f": {commands.quote(str(port))}"
        yield Step("port", raw, "vmctl has a forwarder, which listens on the host and connects inside", "network")


def _cable(switch: str, link: Link) -> Iterator[Step]:
    yield byhand.switch(switch, link)
    inside = 'nsenter --target "$PID" --net ip'
    raw = f'ip link add {link.device} netns {switch} type veth peer name {link.inside} netns "$PID"\n'
    raw += f"ip -n {switch} link set {link.device} master {byhand.BRIDGE} up\n"
    raw += f"{inside} link set {link.inside} address {link.mac}\n" if link.mac else ""
    raw += f"{inside} addr add {link.address}/{link.prefix} dev {link.inside}\n"
    raw += f"{inside} link set {link.inside} up\n{inside} link set lo up"
    if link.gateway:
        raw += f"\n{inside} route add default via {link.gateway}"
    yield Step("network", raw, f"a virtual cable: one end on the bridge, the other {link.inside} inside", "network")


def _enter(launch: Launch) -> Step:
    joined, undo = byhand.join(launch.cgroup), byhand.end(launch.cgroup)
    if not launch.namespaces:
        why = "a shell in the cgroup, which becomes the workload"
        return Step("enter", f"sh -c '{joined}exec setsid --wait sh'", why, "exec", undo=undo)
    words = " ".join(commands.kinds(launch.namespaces & ~_LATER))
    raw = f'sh -c \'{joined}exec nsenter --target "$0" {words} unshare --mount --pid --fork sh\' "$PID"'
    why = "a shell in the namespaces, with its own mounts and pids, which becomes the workload"
    return Step("enter", raw, why, "root", undo=undo)
