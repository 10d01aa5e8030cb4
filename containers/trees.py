"""The root and the volumes of a container as detached mounts: made by the host's root, attached by the container.

Such a mount is described in vmctl/volumes/trees.py. For a user namespace the mounts of layers and volumes are id-mapped
(mount_setattr(2)): all instances share the layers, so their owners cannot be changed; each instance sees uid 0 on disk
as its own root. Files that it writes are in its upper folder, with the ids of its range. The overlay is mounted by the
host's root even then: in a user namespace overlayfs can neither read nor set the attributes (`trusted.overlay.*`) by
which a layer hides a folder of the layer below.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from containers.launch import Launch
from vmctl import ids, userns
from vmctl.errors import UnavailableError
from vmctl.instances.instance import Instance
from vmctl.linux import mountinfo, syscalls
from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

_HINT = "it needs Linux 5.19 and a user.max_user_namespaces above 0; `userns: host` works without"


def make(inst: Instance, launch: Launch, *, own_users: bool) -> Launch:
    """Return the launch with the descriptors of its root and volumes, which the caller closes.

    With `own_users`, ids are reserved and both are mapped to them; a volume that cannot be mapped is recorded as a
    warning. Raises UnavailableError if this kernel cannot map the owners of an image, OSError.
    """
    first_id = userns.reserve(inst) if own_users else None
    with ExitStack() as undo, _namespace(first_id or None) as namespace:  # 0: the owners on disk are those inside
        root = _root(inst, launch, namespace)
        undo.callback(os.close, root)
        volumes = []
        for volume in launch.volumes:
            volumes.append(_volume(volume, namespace, inst.state.warnings))
            undo.callback(os.close, volumes[-1])
        undo.pop_all()
    return launch._replace(first_id=first_id, tree=root, volume_trees=tuple(volumes))


def _volume(volume: Volume, namespace: int | None, warnings: list[str]) -> int:
    from vmctl.volumes import trees  # not every workload has volumes

    return trees.made(volume, namespace, warnings)


def volumes(launch: Launch) -> Launch:
    """Return the launch with the descriptors of its volumes only, for a root that is mounted on the host."""
    from vmctl.volumes import trees

    return launch._replace(volume_trees=tuple(trees.copied(volume) for volume in launch.volumes))


@contextmanager
def _namespace(first_id: int | None) -> Iterator[int | None]:
    if first_id is None:
        yield None
        return
    try:
        with userns.namespace_with(userns.mapping(first_id)) as namespace:
            yield namespace
    except OSError as error:
        if error.filename is not None:  # the step that failed is another one
            raise
        raise UnavailableError(f"this kernel has no user namespace for it: {error.strerror}", hint=_HINT) from None


def _root(inst: Instance, launch: Launch, namespace: int | None) -> int:
    """Return the root's overlay."""
    # overlayfs takes the owner of the root folder from its upper folder
    if namespace is not None and not inst.state.starts:
        _give_to_range(inst.path("upper"), userns.first_id(inst) or 0)
    with ExitStack() as opened:
        layers = []
        for name in launch.root.layers:
            layers.append(syscalls.open_tree(os.path.join(launch.root.folder, name), recursive=False))
            opened.callback(os.close, layers[-1])
            if namespace is not None:
                _map_layer(layers[-1], namespace)
        try:
            return launch.root.detached(layers)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return _attached_first(inst, launch, layers)


def _give_to_range(folder: str, first_id: int) -> None:
    status = os.stat(folder)
    os.chown(folder, *(first_id + (number if number < ids.COUNT else 0) for number in (status.st_uid, status.st_gid)))


def _map_layer(layer: int, namespace: int) -> None:
    try:
        syscalls.mount_setattr(layer, syscalls.MOUNT_ATTR_IDMAP, namespace)
    except OSError as error:
        raise UnavailableError(
            f"this kernel cannot map the owners of an image to a user namespace: {error.strerror}", hint=_HINT
        ) from None


def _attached_first(inst: Instance, launch: Launch, layers: Sequence[int]) -> int:
    """Return the overlay by the way of a kernel before Linux 6.15, which accepts only layers that are attached."""
    for path in (inst.run_dir, launch.root.target):
        inst.journal.record("mount", path=path)
    points = [os.path.join(inst.run_dir, "layers", str(number)) for number in range(len(layers))]
    for layer, point in zip(layers, points, strict=True):
        os.makedirs(point, mode=0o700)
        syscalls.move_mount(layer, point)
    launch.root._replace(layers=tuple(map(os.path.basename, points)), folder=os.path.dirname(points[0])).apply()
    mountinfo.unmount_all(inst.run_dir)  # the overlay keeps them in use
    try:
        root = syscalls.open_tree(launch.root.target, recursive=False)
    finally:
        syscalls.umount2(launch.root.target, syscalls.MNT_DETACH)
    syscalls.mount_setattr(root, 0, propagation=syscalls.MS_PRIVATE)  # pivot_root(2) refuses a shared one
    return root


def commands(sources: Sequence[str], first_id: int) -> Iterator[str]:
    """Yield what maps the owners of layers and volumes, as commands, for `up --explain`."""
    for source in sources:
        yield f"mount --rbind -o X-mount.idmap=b:0:{first_id}:{ids.COUNT} {source} DETACHED"
