"""A folder that others can change while we read it, seen through a private mount that follows no symbolic link."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl.linux import syscalls


@contextmanager
def without_links(folder: str) -> Iterator[str]:
    """Yield a path of the folder on a detached mount, which ends with this process; links in it can only be read.

    Otherwise, the owner of the folder could exchange a folder in it for a link, between two looks of ours, and root
    would read files that the owner may not read. A process that may not mount reads with its own rights, through
    `folder` itself. Raises OSError.
    """
    try:
        tree = syscalls.open_tree(folder)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        yield folder
        return
    try:
        forbid_links(tree)
        yield f"/proc/self/fd/{tree}/."  # without the dot the path would be a symbolic link
    finally:
        os.close(tree)


def forbid_links(tree: int) -> None:
    """Make the kernel refuse each path through a symbolic link of a detached mount: mount_setattr(2), Linux 5.14."""
    try:
        syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_NOSYMFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):  # an older kernel
            raise
