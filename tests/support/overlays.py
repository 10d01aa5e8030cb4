"""An image's layers, mounted as an instance would have them, to look at."""

import os
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory

from images.layer import mounts
from vmctl.linux import syscalls


@contextmanager
def mounted(image):
    """Lend the folder with the image's root, read-only."""
    with TemporaryDirectory(prefix="vmctl-mounted-") as root, ExitStack() as stack:
        folders = []
        for number, layer in enumerate(image.layers):
            folders.append(os.path.join(root, str(number)))
            os.mkdir(folders[-1])
            mounts.mount_erofs(layer.path, folders[-1])
            stack.callback(syscalls.umount2, folders[-1])
        if len(folders) == 1:
            yield folders[0]
            return
        merged = os.path.join(root, "merged")
        os.mkdir(merged)
        syscalls.mount("overlay", merged, "overlay", 0, f"lowerdir={':'.join(reversed(folders))}")
        stack.callback(syscalls.umount2, merged)
        yield merged
