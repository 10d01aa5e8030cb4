"""Files with the host's ids on disk, seen with those of a user namespace: id-mapped mounts (mount_setattr(2)).

The layers are shared by all instances, so their owners cannot be changed; each instance sees them through mounts in
which 0 on disk is its own root. What it then writes lies in its upper folder, with the ids of its range.
"""

from __future__ import annotations

import errno
import os

from containers import mountplan, userns
from containers.launch import Launch
from images.layer import mounts
from images.store.image import Layer
from vmctl.errors import UnavailableError
from vmctl.instance import Instance
from vmctl.linux import abilities, mountinfo, syscalls
from vmctl.named import NamedTuple


class View(NamedTuple):
    """A mount with all below it, seen again at another place with mapped owners."""

    source: str
    target: str
    first_id: int
    optional: bool = False  # where the file system cannot map, the owners stay the host's: nobody, seen from inside

    def apply(self, namespace: int) -> None:
        """Take the step, with the mapping of the user namespace that the descriptor stands for. Raises OSError."""
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
        option = f"X-mount.idmap=b:0:{self.first_id}:{userns.COUNT}"
        return f"mount --rbind -o {option} {self.source} {self.target}"


class Views(NamedTuple):
    """All that is mounted for one instance before its user namespace exists, by the host's root.

    The overlay too: inside a user namespace overlayfs would neither see nor make the attributes (`trusted.overlay.*`)
    by which a layer hides a folder of the layer below it.
    """

    layers: tuple[View, ...]
    root: mountplan.Overlay
    volumes: tuple[View, ...]


def views(launch: Launch, layers: list[str], folder: str, first_id: int) -> Views:
    """Return what a launch needs, in a folder for mount points of its own; makes nothing."""
    seen = tuple(View(point, f"{folder}/layers/{number}", first_id) for number, point in enumerate(layers))
    root = mountplan.root([view.target for view in seen], os.path.dirname(launch.root.target))
    # what root makes in a volume is root's on the host, as in the other modes
    volumes = (View(volume.source, f"{folder}/volumes/{n}", first_id, True) for n, volume in enumerate(launch.volumes))
    return Views(seen, root, tuple(volumes))


def inside(launch: Launch, views: Views, first_id: int) -> Launch:
    """Return the launch as its user namespace sees it, where the views are mounted."""
    volumes = (volume._replace(source=view.target) for volume, view in zip(launch.volumes, views.volumes, strict=True))
    return launch._replace(root=mountplan.again(launch.root.target), volumes=tuple(volumes), first_id=first_id)


def mount(inst: Instance, launch: Launch, layers: list[str]) -> Launch:
    """Reserve ids, mount root and volumes with them, and return the launch that goes by it. Raises OSError.

    The ids are in the instance's state, the mounts in its journal.
    """
    first_id = userns.reserve(inst)
    wanted = views(launch, layers, inst.run_dir, first_id)
    for path in (inst.run_dir, launch.root.target):
        inst.journal.record("mount", path=path)
    os.chown(inst.path("upper"), first_id, first_id)  # the root folder's owner is taken from it
    with userns.example(userns.mapping(first_id)) as namespace:
        for view in (*wanted.layers, *wanted.volumes):
            view.apply(namespace)
    wanted.root.apply()
    mountinfo.unmount_all(f"{inst.run_dir}/layers")  # the overlay holds them
    return inside(launch, wanted, first_id)


def check(layer: Layer) -> None:
    """Map the owners of a layer, in a process whose mounts go with it. Raises UnavailableError."""
    error = abilities.failure_of(lambda: _rehearse(layer))
    if error:
        raise UnavailableError(
            f"this kernel cannot map the owners of an image to a user namespace: {error.strerror}",
            hint="Linux 5.19 can, where user.max_user_namespaces allows it; `userns: host` does without",
        )


def _rehearse(layer: Layer) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    stage = "/sys"  # a folder that every host has and nothing here needs
    mounts.mount_erofs(layer.path, stage)
    with userns.example(userns.mapping(userns.FIRST)) as namespace:
        View(stage, stage, userns.FIRST).apply(namespace)


def _make_like(source: str, target: str) -> None:
    """Make a folder, or for a file a file, to mount on."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
