"""Copy a folder of an image, as its merged layers show it, to a new folder of this host."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from images.layer import writing
from images.layer.lookup import Node, View
from images.store.image import Layer
from vmctl.linux.stdio import write_all
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Level(NamedTuple):
    """A folder that is being filled."""

    path: bytes  # in the image
    node: Node
    names: Iterator[bytes]


def copy(layers: Sequence[Layer], path: str, target: str) -> bool:
    """Copy the folder at a path of an image to `target`, a new folder; return False if nothing is there to copy.

    Links on the way to the folder lead into the image, those in it are copied. Devices are left out: a volume gives no
    access to them. Files with several names become several files. Raises ImageError, OSError.
    """
    with View(layers) as view:
        node = view.find(path)
        if node is None or not stat.S_ISDIR(node.attributes.mode):
            return False
        os.mkdir(target, 0o700)
        _copy(view, _Level(os.fsencode(path), node, iter(view.names(path))), os.open(target, writing.FOLDER))
        return True


def _copy(view: View, top: _Level, here: int) -> None:
    """Only the folder that is being filled is open, so a tree can be of any depth; `here` is closed."""
    levels = [top]
    try:
        while levels:
            level = levels[-1]
            name = next(level.names, None)
            if name is None:
                writing.describe(here, levels.pop().node.attributes)
                here = writing.moved(here, b"..") if levels else here
                continue
            path = level.path + b"/" + name
            node = view.find(path, follow=False)
            if node is None:
                continue
            if stat.S_ISDIR(node.attributes.mode):
                os.mkdir(name, 0o700, dir_fd=here)
                here = writing.moved(here, name)
                levels.append(_Level(path, node, iter(view.names(path))))
            else:
                _leaf(view, path, node, here)
    finally:
        os.close(here)


def _leaf(view: View, path: bytes, node: Node, here: int) -> None:
    name, mode = os.path.basename(path), node.attributes.mode
    if stat.S_ISREG(mode):
        fd = os.open(name, writing.NEW_FILE, 0o600, dir_fd=here)
        try:
            for part in view.content(path):
                write_all(fd, part)
            writing.describe(fd, node.attributes)
        finally:
            os.close(fd)
        return
    if stat.S_ISLNK(mode):
        os.symlink(node.target, name, dir_fd=here)
    elif stat.S_ISFIFO(mode):
        os.mkfifo(name, 0o600, dir_fd=here)
    else:
        return
    writing.describe_name(name, node.attributes, here)
