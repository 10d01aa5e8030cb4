"""A kernel's modules as one EROFS file: a layer below the layers of an image, for guests that boot a system.

The file is written once per kernel and used until the modules change. All guests share it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator
from shutil import copyfile

from images.kernels.kernel import Kernel
from images.layer import layers
from images.layer.readers import from_iterator
from images.store.staging import staging
from vmctl import paths
from vmctl.linux.filetree import is_being_written, replacing

FOLDER = "usr/lib/modules"  # in current images /lib is a link to usr/lib
_LINK = "lib/modules"  # for images in which /lib is a folder


def build(kernel: Kernel) -> str:
    """Return the path of the EROFS file with /usr/lib/modules/RELEASE; write it if it is missing.

    Raises ImageError, or VmctlError if the store cannot be written.
    """
    path = _path(kernel)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with staging() as stage:
            layer = layers.from_tar(stage, from_iterator(_tar(kernel)))
            with replacing(path, durable=True) as temporary:
                copyfile(layer.path, temporary)  # the cache may be on another file system
    return path


def stale(kernels: Iterable[Kernel]) -> list[str]:
    """Return the files that none of the kernels uses."""
    try:
        names = os.listdir(_folder())
    except FileNotFoundError:
        return []
    kept = {os.path.basename(_path(kernel)) for kernel in kernels}
    stale = (name for name in names if name not in kept and not is_being_written(name))
    return sorted(os.path.join(_folder(), name) for name in stale)


def _path(kernel: Kernel) -> str:
    """Return the path of the EROFS file; it changes with modules.dep, which depmod(8) writes last."""
    status = os.stat(os.path.join(kernel.modules, "modules.dep"))
    state = repr((kernel.modules, status.st_ino, status.st_size, status.st_mtime_ns))
    return os.path.join(_folder(), f"{kernel.release}-{hashlib.sha256(state.encode()).hexdigest()[:16]}.erofs")


def _folder() -> str:
    return os.path.join(paths.cache_root(), "modules")


def _tar(kernel: Kernel) -> Iterator[bytes]:
    """Yield a tar of the modules below FOLDER, owned by root."""
    yield _header(tarfile.TarInfo(_LINK), type=tarfile.SYMTYPE, linkname=os.path.relpath(FOLDER, "lib"))
    for folder, folders, files in os.walk(kernel.modules):
        folders.sort()
        for name in sorted(files):
            yield from _file(kernel, os.path.join(folder, name))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _file(kernel: Kernel, path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        content = file.read()
    name = os.path.join(FOLDER, kernel.release, os.path.relpath(path, kernel.modules))
    info = tarfile.TarInfo(name)
    info.mtime = int(os.stat(path).st_mtime)
    yield _header(info, size=len(content), mode=0o644)
    yield content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo, **values: object) -> bytes:
    for name, value in values.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)
