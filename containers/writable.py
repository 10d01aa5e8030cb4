"""The writable layer of a container, as its workload sees it, for `diff` and `commit`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from containers import userns
from vmctl import freezer
from vmctl.backend import Writable
from vmctl.errors import UnavailableError
from vmctl.instance import Instance
from vmctl.linux import syscalls

# where every container has a file system of the kernel's (plan.py)
_MOUNT_POINTS = ("/dev", "/proc", "/sys")


@contextmanager
def writable(inst: Instance, *, pause: bool) -> Iterator[Writable]:
    """Lend the upper folder of an instance. Raises UnavailableError where pausing it, or telling its owners, fails."""
    with ExitStack() as stack:
        if pause:
            stack.enter_context(freezer.frozen(inst))
        folder = stack.enter_context(_view(inst.path("upper"), userns.first_id(inst)))
        yield Writable(folder, (*_MOUNT_POINTS, *(volume.target for volume in inst.work.volumes)))


@contextmanager
def _view(folder: str, first_id: int | None) -> Iterator[str]:
    """Lend a folder of the host as a mount that is attached nowhere, so it ends with this process.

    No symbolic link in it leads anywhere: a workload that goes on could put one in the place of what is about to be
    read. The ids of a range are those there are inside. Raises UnavailableError where they cannot be mapped.
    """
    tree = syscalls.open_tree(folder)
    try:
        with suppress(OSError):  # Linux 5.14 has it
            syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_NOSYMFOLLOW)
        if first_id is not None:
            _map(tree, first_id, folder)
        yield f"/proc/self/fd/{tree}/."  # the folder, where the path without the dot is a link to it
    finally:
        os.close(tree)


def _map(tree: int, first_id: int, folder: str) -> None:
    try:
        with userns.example(userns.inverse(first_id)) as namespace:
            syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP, namespace)
    except OSError as error:
        raise UnavailableError(
            f"the owners in {folder} cannot be told: {error.strerror}", hint="its file system cannot map ids"
        ) from None
