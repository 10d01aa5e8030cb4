"""A file tree as a layer: one EROFS file, read-only, that a container mounts and a guest has as a disk.

The tree's tar names the layer and is not kept. Both are written in a fixed form (order, time, owner, UUID), so
that the same tree gives the same digest and the same bytes on every host. See mkfs.erofs(1).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, cast

from images import store
from images.image import Layer
from vmctl.run import run

if TYPE_CHECKING:
    from tarfile import TarInfo

_UUID = "00000000-0000-0000-0000-000000000000"
# linux/fs/erofs/erofs_fs.h: the superblock at 1024, in it build_time (u64) and build_time_nsec (u32) at 24
_BUILD_TIME_OFFSET, _BUILD_TIME_BYTES = 1024 + 24, 12


def build_layer(tree: str) -> Layer:
    """Return the layer with the content of the folder `tree`, made where the store does not have it yet.

    Owners are the tree's own for root; for other users, who own all they can make, everything becomes root's.
    Raises UnavailableError without mkfs.erofs, CommandError where it fails.
    """
    digest, size_bytes = _measure(tree)
    path = store.layer_path(digest)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _make_erofs(tree, path)
    return Layer(digest, path, size_bytes)


def _make_erofs(tree: str, path: str) -> None:
    """Write the EROFS file, whole or not at all.

    Not compressed: the first start of a program takes as long from an lz4 layer as from a plain one (7 ms), a guest
    without KVM would decompress at an emulator's speed, and the gain is a third of 2 MB.
    """
    temporary = f"{path}.{os.getpid()}.new"
    # xattrs off: they would be the build host's (SELinux labels). Extended inodes: only they carry a file's own time.
    options = ["-x-1", f"-U{_UUID}", "-Eforce-inode-extended,nosbcrc"]
    if os.geteuid() != 0:
        options.append("--all-root")
    try:
        run(["mkfs.erofs", "--quiet", *options, temporary, tree], timeout_s=1800)
        with open(temporary, "r+b") as file:  # the one thing that differs from build to build
            file.seek(_BUILD_TIME_OFFSET)
            file.write(bytes(_BUILD_TIME_BYTES))
        os.chmod(temporary, 0o444)
        os.rename(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


class _Meter:
    """A file that keeps only the digest and the length of what is written to it."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size_bytes += len(data)
        return len(data)


def _measure(tree: str) -> tuple[str, int]:
    """Return digest and size of the tree's tar."""
    import tarfile

    meter = _Meter()
    with tarfile.open(fileobj=cast(IO[bytes], meter), mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in _walk(tree):
            info = _normal(tar.gettarinfo(path, os.path.relpath(path, tree)))
            if info.isreg():
                with open(path, "rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    return "sha256:" + meter.sha256.hexdigest(), meter.size_bytes


def _walk(folder: str) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _normal(info: TarInfo) -> TarInfo:
    info.uname = info.gname = ""  # numbers only: names differ from host to host
    info.mtime = int(info.mtime)
    if os.geteuid() != 0:
        info.uid = info.gid = 0
    return info
