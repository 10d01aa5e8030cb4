"""Reads the root file system of a disk, found by its content, as a layer.

For root, the kernel mounts the file system read-only, nosuid, nodev and noexec, detached from the mount tree. For other
users, libguestfs reads it in a virtual machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from images.disks import diskimage
from images.disks.partitions import Partition, of_disk
from images.layer import layers
from images.layer.progress import Progress
from images.store.image import ImageError, Layer
from images.store.staging import Stage
from vmctl.errors import UnavailableError
from vmctl.linux.loops import detached, loop_device
from vmctl.programs import CommandError, run, which
from vmctl.spec.units import format_size

_SIGNS = ("etc/os-release", "usr/lib/os-release", "sbin/init", "bin/sh", "usr/bin/sh")
_SUBVOLUMES = (".", "root", "@", "@rootfs")  # names of btrfs subvolumes in Fedora, Ubuntu and Debian
_SKIPPED = ("lost+found",)  # created by mke2fs(8)
_MOUNTED = ("ext4", "xfs", "btrfs", "erofs", "squashfs")
_LIBGUESTFS_S = 3600.0


def read(stage: Stage, path: str, kind: str, progress: Progress) -> Layer:
    """Return a layer with the root file system of a disk, which has passed `diskimage.check`.

    Raises ImageError if the disk has no root file system, UnavailableError if this user cannot read it.
    """
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        return _by_libguestfs(stage, path, kind, progress)
    raw = stage.path("disk.raw")
    diskimage.convert(path, kind, raw, "raw", progress)
    parts = of_disk(raw)
    for part in parts:
        with _mounted(raw, part) as folder:
            if folder and (root := _root_in(folder)):
                progress(f"reading the root file system, {format_size(part.size_bytes)}")
                return layers.from_folder(stage, root, skip=_SKIPPED)
    found = ", ".join(f"{part.kind or 'unknown'} of {format_size(part.size_bytes)}" for part in parts) or "none"
    raise ImageError(f"{path} has no root file system; its partitions: {found}")


@contextmanager
def _mounted(raw: str, part: Partition) -> Iterator[str]:
    """Yield a folder with a partition's content, "" if it cannot be mounted."""
    with ExitStack() as stack:
        folder = ""
        if part.kind in _MOUNTED:
            place = {"offset": part.offset, "size_bytes": part.size_bytes}
            # writable, because the kernel replays the journal even for a read-only mount; `raw` is a copy
            device = stack.enter_context(loop_device(raw, **place, writable=True))
            with suppress(OSError):
                folder = stack.enter_context(detached(device, part.kind))
        yield folder


def _root_in(folder: str) -> str:
    for place in _SUBVOLUMES:
        root = os.path.join(folder, place)
        if not os.path.islink(root) and any(os.path.lexists(os.path.join(root, sign)) for sign in _SIGNS):
            return root
    return ""


def _by_libguestfs(stage: Stage, path: str, kind: str, progress: Progress) -> Layer:
    if which("guestfish") is None:
        raise UnavailableError(
            f"the file system on {path} cannot be read by this user",
            hint="run the command as root, or install libguestfs (Debian: guestfish)",
        )
    tar = stage.path("root.tar")

    def report(_: int) -> None:
        written = os.path.getsize(tar) if os.path.exists(tar) else 0
        progress(f"reading the root file system with libguestfs: {format_size(written)}")

    words = ["tar-out", "/", tar, "xattrs:true", "acls:true", "numericowner:true"]
    argv = ["guestfish", "--ro", f"--format={kind}", "-a", os.path.abspath(path), "-i", *words]
    try:
        run(argv, timeout_s=_LIBGUESTFS_S, tick=report)
    except CommandError as error:
        lines = error.output.strip().splitlines()
        reasons = [line for line in lines if line.startswith(("guestfish: ", "libguestfs: error: "))]
        reason = (reasons or lines or [error.reason])[0]
        raise ImageError(f"libguestfs cannot read {path}: {reason.partition(': ')[2] or reason}") from None
    with open(tar, "rb") as stream:
        return layers.from_tar(stage, stream)
