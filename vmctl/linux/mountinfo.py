"""The mounts of a mount namespace (proc_pid_mountinfo(5))."""

from __future__ import annotations

import errno
import os

from vmctl.linux import kernelfile
from vmctl.linux.syscalls import MNT_DETACH, umount2


def below(*paths: str, pid: str = "self") -> list[str]:
    """Return the mount points at and below these paths in the namespace of a process, in the order of mounting."""
    tops = tuple(os.path.realpath(path) + "/" for path in paths)  # the kernel lists paths without links
    lines = kernelfile.read(f"/proc/{pid}/mountinfo").split("\n")[:-1]  # splitlines knows more ends of a line
    points = [_unescaped(line.split(" ", 5)[4]) for line in lines]
    return [point for point in points if f"{point}/".startswith(tops)]


def _unescaped(text: str) -> str:
    r"""Return a mount point with its escapes replaced: \040 is a space. The kernel escapes the backslash, too."""
    first, *others = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in others)


def unmount_all(path: str) -> None:
    """Unmount everything at and below `path`. Raises OSError.

    The deepest come first: a mount may be attached below one that was made later (move_mount(2)). In a user namespace,
    a copy of a mount of the host can be unmounted only with the mount that it is in (EINVAL).
    """
    for point in sorted(below(path), key=lambda point: point.count("/"), reverse=True):
        try:
            umount2(point, MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    if left := below(path):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), left[-1])
