"""The writable layer of a container as its workload sees it, for `diff` and `commit`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from images.store import store
from images.store.image import TMP, data_folders, provided
from vmctl import userns
from vmctl.errors import UnavailableError
from vmctl.instances import freezer
from vmctl.instances.instance import Instance
from vmctl.linux import syscalls, views
from vmctl.writable import Writable

# where every container has a kernel file system mounted (mountplan.py)
_MOUNT_POINTS = ("/dev", "/proc", "/sys")


@contextmanager
def writable(inst: Instance, *, pause: bool) -> Iterator[Writable]:
    """Yield the upper folder of an instance. Raises UnavailableError if pausing it or mapping its owners fails."""
    with ExitStack() as stack:
        if pause:
            stack.enter_context(freezer.frozen(inst))
        folder = stack.enter_context(_view(inst.path("upper"), userns.first_id(inst) or None))
        image = store.find(inst.image)
        work, folders = inst.work, data_folders(image)
        made = (*_MOUNT_POINTS, TMP, *folders, *(file.path for file in provided(work, "", None)))
        targets = (*(one.target for one in work.volumes), *(one.target for one in work.tmpfs))
        yield Writable(folder, (*made, *targets), _below(inst))


def _below(inst: Instance) -> tuple[str, ...]:
    """Return the layers of the snapshot that an instance is a clone of."""
    if inst.state.snapshot is None:
        return ()
    from containers import kept

    return tuple(layer.path for layer in kept.of(inst))


@contextmanager
def _view(folder: str, first_id: int | None) -> Iterator[str]:
    """Yield a folder of the host as a detached mount, which ends with this process.

    Symbolic links in it are not followed: a running workload could replace a file by a link just before it is read.
    Owners in the range `first_id` are shown as inside. Raises UnavailableError if they cannot be mapped.
    """
    tree = syscalls.open_tree(folder)
    try:
        views.forbid_links(tree)
        if first_id is not None:
            _map(tree, first_id, folder)
        yield f"/proc/self/fd/{tree}/."  # without the dot the path would be a symbolic link
    finally:
        os.close(tree)


def _map(tree: int, first_id: int, folder: str) -> None:
    try:
        with userns.namespace_with(userns.inverse_mapping(first_id)) as namespace:
            syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP, namespace)
    except OSError as error:
        raise UnavailableError(
            f"the file owners in {folder} cannot be mapped: {error.strerror}",
            hint="the file system does not support id-mapped mounts",
        ) from None
