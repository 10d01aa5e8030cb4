"""Devices of the host in a container: a node for each, and a place in the list of devices that can be opened.

For root the node is made in a file system in memory that nobody else has. It has the numbers of the host's node, and
its mode, owner and group, which are the same numbers inside, as in docker. An ordinary user cannot make nodes
(mknod(2)): that of the host is bound, and opens for whom it opens there.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack

from vmctl import ids
from vmctl.errors import NotFoundError, SpecError, UnavailableError
from vmctl.linux import devices, syscalls, usernamespace
from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers.launch import Launch
    from vmctl.instances.instance import Instance
    from vmctl.spec.workload import Device, Workload

_ATTRIBUTES = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
_MEMORY = 1  # major number of /dev/mem, /dev/kmsg and others (Documentation/admin-guide/devices.txt)


def check(work: Workload) -> None:
    """Raise NotFoundError, SpecError or UnavailableError for a device that a container cannot have."""
    for device in work.devices:
        status = _status(device)
        if not usernamespace.is_host_root():
            _check_for_user(device, status)


def _status(device: Device) -> os.stat_result:
    source = device.source
    try:
        status = os.stat(source)
    except OSError as error:
        raise NotFoundError(
            f"devices: {source} of the host: {error.strerror}", hint="`ls -l /dev` lists them"
        ) from None
    if stat.S_ISDIR(status.st_mode):
        raise SpecError(f"devices: {source} is a folder", hint=f"name each device in it: `ls -l {source}`")
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise SpecError(f"devices: {source} is not a device", hint="`volumes` takes files and folders")
    return status


def _check_for_user(device: Device, status: os.stat_result) -> None:
    """Raise UnavailableError unless the node opens for the user, who is 0 here, in spite of the groups of that user."""
    if not {"r", "w"} <= set(device.access):
        raise UnavailableError(
            f"devices: {device.source}:{device.access}: only root can limit what is done with a device",
            hint="leave the letters out: the mode of the host's node decides",
        )
    bits = status.st_mode >> 6 if status.st_uid == 0 else status.st_mode
    if bits & 0o6 != 0o6:
        mode = stat.filemode(status.st_mode)
        raise UnavailableError(
            f"devices: {device.source} does not open for this user in a container: its mode is {mode}, and a container"
            " of an ordinary user has none of the user's groups",
            hint="run vmctl as root, or give the node to this user: chown(1)",
        )


def rules(work: Workload) -> tuple[devices.Device, ...]:
    """Return the devices for the list of a control group."""
    found = []
    for device in work.devices:
        status = _status(device)
        kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
        number = status.st_rdev
        found.append(devices.Device(os.major(number), os.minor(number), kind, device.access))
    return tuple(found)


def weaknesses(work: Workload) -> Iterator[str]:
    """Yield what each device puts in reach."""
    for device in work.devices:
        status = _status(device)
        does = " and ".join(word for letter, word in (("r", "read"), ("w", "change")) if letter in device.access)
        if stat.S_ISBLK(status.st_mode):
            yield f"devices: {device.source}: a disk of the host: the workload can {does} all of it, past all rights"
        elif os.major(status.st_rdev) == _MEMORY:
            yield f"devices: {device.source}: the kernel's memory or log of the host, which the workload can {does}"
        else:
            yield f"devices: {device.source}: the driver of a device of the host is in reach"


def added(inst: Instance, launch: Launch) -> Launch:
    """Return the launch with a mount for each device, whose descriptors the caller closes. Raises OSError."""
    with ExitStack() as undo:
        make = _made if usernamespace.is_host_root() else _bound
        trees = make(inst, launch, undo)
        for tree in trees:
            syscalls.mount_setattr(tree, _ATTRIBUTES | syscalls.MOUNT_ATTR_RDONLY)  # of the node, not of the device
        undo.pop_all()
    more = tuple(Volume(device.source, device.target) for device in inst.work.devices)
    return launch._replace(volumes=(*launch.volumes, *more), volume_trees=(*launch.volume_trees, *trees))


def _bound(inst: Instance, launch: Launch, undo: ExitStack) -> list[int]:
    trees = []
    for device in inst.work.devices:
        trees.append(syscalls.open_tree(os.path.realpath(device.source), recursive=False))
        undo.callback(os.close, trees[-1])
    return trees


def _made(inst: Instance, launch: Launch, undo: ExitStack) -> list[int]:
    """Return mounts of new nodes; they are made where a killed command leaves nothing: the journal has the mount."""
    point = os.path.join(inst.run_dir, "devices")
    inst.journal.record("mount", path=inst.run_dir)
    os.makedirs(point, mode=0o700, exist_ok=True)
    memory = syscalls.new_mount("tmpfs", (("source", "tmpfs"), ("size", "64k"), ("mode", "700")), _ATTRIBUTES)
    try:
        syscalls.move_mount(memory, point)
    finally:
        os.close(memory)
    trees = []
    try:
        for number, device in enumerate(inst.work.devices):
            status, path = _status(device), os.path.join(point, str(number))
            os.mknod(path, stat.S_IFMT(status.st_mode), status.st_rdev)
            first = launch.first_id or 0
            os.chown(path, *(first + (one if one < ids.COUNT else 0) for one in (status.st_uid, status.st_gid)))
            os.chmod(path, stat.S_IMODE(status.st_mode))
            trees.append(syscalls.open_tree(path, recursive=False))
            undo.callback(os.close, trees[-1])
    finally:
        syscalls.umount2(point, syscalls.MNT_DETACH)
        os.rmdir(point)
    return trees
