"""Whatever vmctl keeps is for its owner only: the state and run folders have mode 0700, and the umask is 077.

The mode of these two folders is the barrier. Below them are setuid programs that workloads have made, and file systems
that may be mounted without `nosuid`: a local user who reached them would be root. So the folders are checked before
each command, and an installation of an earlier version is tightened. A workload starts with the umask 022.
"""

from __future__ import annotations

import os
import stat

from vmctl import paths
from vmctl.errors import UnavailableError

UMASK = 0o077


def set_umask() -> None:
    """Make every file that this process and its children create private, from its first byte."""
    os.umask(UMASK)


def close_folders() -> None:
    """Take all rights to the state and run folders from other users. Raises UnavailableError.

    A folder that belongs to somebody else is refused: its owner could exchange everything in it. For an ordinary user
    this includes the folder above them: a VMCTL_ROOT may be in /tmp, where anybody can make it first.
    """
    for path in (paths.state_root(), paths.run_root()):
        status = _status(path)
        if status is None:
            continue
        if status.st_uid != os.geteuid():
            raise _foreign(path, status.st_uid)
        if stat.S_IMODE(status.st_mode) & UMASK:
            _chmod(path)
    above = os.path.dirname(paths.run_root())
    if os.geteuid() != 0 and (status := _status(above)) and status.st_uid not in (0, os.geteuid()):
        raise _foreign(above, status.st_uid)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise UnavailableError(
            f"{path} is below a folder of another user", hint="use sudo, or set VMCTL_ROOT"
        ) from None


def _chmod(path: str) -> None:
    try:
        os.chmod(path, 0o700)
    except OSError as error:
        raise UnavailableError(
            f"{path} is open to other users and cannot be closed: {error.strerror}", hint=f"chmod 0700 {path}"
        ) from None


def _foreign(path: str, uid: int) -> UnavailableError:
    from pwd import getpwuid

    try:
        owner = getpwuid(uid).pw_name
    except KeyError:
        owner = f"user {uid}"
    hint = "run it as root: sudo vmctl ..." if uid == 0 else f"run it as {owner}"
    return UnavailableError(f"{path} belongs to {owner}", hint=f"{hint}, or set VMCTL_ROOT to another folder")
