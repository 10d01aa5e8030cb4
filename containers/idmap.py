"""Id-mapped mounts (mount_setattr(2)): files with the host's ids on disk, seen with the ids of a user namespace.

All instances share the layers, so their owners cannot be changed. Each instance sees the layers through mounts that
map uid 0 on disk to its own root. Files it writes are in its upper folder, with the ids of its range.
"""

from __future__ import annotations

import errno
import os

from containers import mountplan, userns
from containers.launch import Launch
from images.layer import mounts
from images.store.image import Layer
from vmctl import ids
from vmctl.errors import UnavailableError
from vmctl.instance import Instance
from vmctl.linux import abilities, mountinfo, syscalls
from vmctl.named import NamedTuple


class View(NamedTuple):
    """A copy of a mount and all mounts below it, at another place and with mapped owners."""

    source: str
    target: str
    first_id: int
    optional: bool = False  # if the file system cannot map ids, the owners stay the host's: `nobody` inside

    def apply(self, namespace: int) -> None:
        """Apply the step with the mapping of a user namespace, given by its descriptor. Raises OSError."""
        tree = syscalls.open_tree(self.source)
        try:
            self._map(tree, namespace)
            _make_like(self.source, self.target)
            syscalls.move_mount(tree, self.target)
        finally:
            os.close(tree)

    def _map(self, tree: int, namespace: int) -> None:
        try:
            syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP, namespace)
        except OSError as error:
            if not (self.optional and error.errno == errno.EINVAL):
                raise

    def __str__(self) -> str:
        option = f"X-mount.idmap=b:0:{self.first_id}:{ids.COUNT}"
        return f"mount --rbind -o {option} {self.source} {self.target}"


class Views(NamedTuple):
    """All mounts of one instance that the host's root makes before the instance's user namespace exists.

    The overlay is one of them: in a user namespace overlayfs can neither read nor set the attributes
    (`trusted.overlay.*`) by which a layer hides a folder of the layer below.
    """

    layers: tuple[View, ...]
    root: mountplan.Overlay
    volumes: tuple[View, ...]


def views(launch: Launch, layers: list[str], folder: str, first_id: int) -> Views:
    """Return the mounts of a launch, with `folder` for their mount points; mounts nothing."""
    seen = tuple(View(point, f"{folder}/layers/{number}", first_id) for number, point in enumerate(layers))
    root = mountplan.root([view.target for view in seen], os.path.dirname(launch.root.target))
    # a file that root creates in a volume belongs to root on the host, as in the other modes
    volumes = (View(volume.source, f"{folder}/volumes/{n}", first_id, True) for n, volume in enumerate(launch.volumes))
    return Views(seen, root, tuple(volumes))


def in_user_namespace(launch: Launch, views: Views, first_id: int) -> Launch:
    """Return the launch with the paths that its user namespace sees once the views are mounted."""
    volumes = (volume._replace(source=view.target) for volume, view in zip(launch.volumes, views.volumes, strict=True))
    return launch._replace(
        root=mountplan.bind_onto_itself(launch.root.target), volumes=tuple(volumes), first_id=first_id
    )


def mount(inst: Instance, launch: Launch, layers: list[str]) -> Launch:
    """Reserve ids, mount root and volumes with them, and return the launch for the user namespace. Raises OSError.

    The ids are saved in the instance's state, the mounts in its journal.
    """
    first_id = userns.reserve(inst)
    wanted = views(launch, layers, inst.run_dir, first_id)
    for path in (inst.run_dir, launch.root.target):
        inst.journal.record("mount", path=path)
    os.chown(inst.path("upper"), first_id, first_id)  # overlayfs takes the owner of the root folder from it
    with userns.namespace_with(userns.mapping(first_id)) as namespace:
        for view in (*wanted.layers, *wanted.volumes):
            view.apply(namespace)
    wanted.root.apply()
    mountinfo.unmount_all(f"{inst.run_dir}/layers")  # the overlay keeps them in use
    return in_user_namespace(launch, wanted, first_id)


def check(layer: Layer) -> None:
    """Try to map the owners of a layer, in a child whose mounts end with it. Raises UnavailableError."""
    error = abilities.failure_of(lambda: _rehearse(layer))
    if error:
        raise UnavailableError(
            f"this kernel cannot map the owners of an image to a user namespace: {error.strerror}",
            hint="it needs Linux 5.19 and a user.max_user_namespaces above 0; `userns: host` works without",
        )


def _rehearse(layer: Layer) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    stage = "/sys"  # a folder that every host has and this process does not need
    mounts.mount_erofs(layer.path, stage)
    with userns.namespace_with(userns.mapping(ids.FIRST)) as namespace:
        View(stage, stage, ids.FIRST).apply(namespace)


def _make_like(source: str, target: str) -> None:
    """Create the mount point: a folder for a folder, a file for a file."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
