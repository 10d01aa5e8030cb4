"""Folders in memory that a workload asks for; only a start with such folders imports this module."""

from __future__ import annotations

from vmctl.linux import syscalls
from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import depth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmctl.spec.workload import Tmpfs

_PLAIN = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV


def added(mounts: Iterable[tuple[str, int]], folders: Iterable[Tmpfs]) -> list[tuple[str, int]]:
    """Return targets and detached mounts, with those of folders in memory, in the order in which they are attached.

    Raises OSError.
    """
    found = [*mounts, *((folder.target, _made(folder)) for folder in folders)]
    return sorted(found, key=lambda mount: depth(mount[0]))


def _made(folder: Tmpfs) -> int:
    size = () if folder.size_bytes is None else (("size", str(folder.size_bytes)),)
    attributes = _PLAIN | (syscalls.MOUNT_ATTR_NOEXEC if folder.noexec else 0)
    return syscalls.new_mount("tmpfs", (("source", "tmpfs"), ("mode", f"{folder.mode:o}"), *size), attributes)
