"""The mounts of a mount namespace (proc_pid_mountinfo(5))."""

from __future__ import annotations

import errno
import os

from vmctl.light import re
from vmctl.linux.syscalls import MNT_DETACH, umount2


def below(path: str, pid: str = "self") -> list[str]:
    """Return the mount points at and below `path` in the namespace of a process, in the order they were mounted."""
    path = os.path.realpath(path)  # the kernel lists paths without links
    found = []
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = _unescaped(line.split(" ")[4])
            if point == path or point.startswith(path + "/"):
                found.append(point)
    return found


def _unescaped(text: str) -> str:
    r"""Return a mount point with its escapes replaced: \040 is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text) if "\\" in text else text


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
