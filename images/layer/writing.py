"""Write the files of an image into a folder of this host: owners, modes, times and attributes."""

from __future__ import annotations

import errno
import os
import stat

from images.layer.tree import Attributes
from vmctl.linux import usernamespace

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOBODY = 65534  # the id shown for all others (user_namespaces(7), overflowuid)
_REFUSED = (errno.EPERM, errno.EINVAL, errno.ENOTSUP)


def describe(fd: int, known: Attributes) -> None:
    """Set the attributes of an open file or folder. Raises OSError."""
    os.fchown(fd, *_owner(known))
    os.fchmod(fd, stat.S_IMODE(known.mode))  # after the owner, whose change takes setuid away
    for name, value in known.xattrs.items():
        if not name.startswith(("trusted.", "user.overlay.")):
            _set_attribute(fd, name, value)
    os.utime(fd, ns=(known.mtime_ns, known.mtime_ns))


def describe_name(name: bytes, known: Attributes, here: int) -> None:
    """Set the attributes of a link or FIFO, which are not opened; `here` is a folder that no workload can change."""
    os.chown(name, *_owner(known), dir_fd=here, follow_symlinks=False)
    if not stat.S_ISLNK(known.mode):
        os.chmod(name, stat.S_IMODE(known.mode), dir_fd=here)
    os.utime(name, ns=(known.mtime_ns, known.mtime_ns), dir_fd=here, follow_symlinks=False)


def moved(here: int, name: bytes) -> int:
    """Return a descriptor of another folder, relative to one that is closed."""
    try:
        return os.open(name, FOLDER, dir_fd=here)
    finally:
        os.close(here)


def _owner(known: Attributes) -> tuple[int, int]:
    """Return user and group; with only one id there are no owners."""
    count = usernamespace.ids()
    if count == 1:
        return 0, 0
    uid, gid = (number if number < count else _NOBODY for number in (known.uid, known.gid))
    return uid, gid


def _set_attribute(fd: int, name: str, value: bytes) -> None:
    """Set an attribute, unless only the host's root may: a label of a security module, or an ACL for an id not ours."""
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
