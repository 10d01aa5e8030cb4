"""The volumes of an instance before its first start: an empty one begins with what the image has in that folder.

The content is first copied to `new`, next to the folder that instances see, and moved from there: another instance that
uses the volume already can exchange nothing below the copying, and what a killed command has left is moved by the next.
"""

from __future__ import annotations

import os
import stat
from contextlib import nullcontext, suppress

from images.layer import copying, writing
from images.store.image import Image
from vmctl.leases import User
from vmctl.linux import durable, filetree
from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import Workload
from vmctl.volumes import places, store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from images.store.image import Layer


def prepare(work: Workload, image: Image, user: User, *, first: bool) -> None:
    """Give an instance its volumes; before its `first` start they are filled if they are empty. Raises OSError."""
    places.take(work, user)
    for volume, data in places.ours(work, user.directory) if first else ():
        if not volume.nocopy:
            with store.locked(volume.source) if volume.source else nullcontext():
                fill(data, image.stack, volume.target)


def fill(data: str, layers: Sequence[Layer], path: str) -> None:
    """Give an empty folder the content, owner and mode of a folder of an image, if that exists. Raises OSError."""
    new = os.path.join(os.path.dirname(data), "new")
    if not os.path.isdir(new):
        if os.listdir(data):
            return
        part = f"{new}.part"
        filetree.remove_tree(part)
        if not copying.copy(layers, path, part):
            return
        durable.rename_tree(part, new)
    _move(new, data)


def _move(new: str, data: str) -> None:
    there, here = os.open(data, writing.FOLDER), os.open(new, writing.FOLDER)
    try:
        status = os.fstat(here)
        os.fchown(there, status.st_uid, status.st_gid)
        os.fchmod(there, stat.S_IMODE(status.st_mode))
        for name in os.listdir(here):
            with suppress(FileExistsError, IsADirectoryError, NotADirectoryError):  # an instance has just made it
                os.rename(name, name, src_dir_fd=here, dst_dir_fd=there)
    finally:
        os.close(there)
        os.close(here)
    filetree.remove_tree(new)
