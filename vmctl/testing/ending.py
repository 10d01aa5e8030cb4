"""The end of a session: what it has made is removed, and what tests have left behind is found."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import vmctl
from vmctl import paths
from vmctl.api import snapshot
from vmctl.errors import NotFoundError, VmctlError
from vmctl.instances import instance
from vmctl.linux import filetree
from vmctl.snapshots import record

KEPT = ".kept"  # how the file in the folder of a session ends that keeps an instance


def prefix(run: str) -> str:
    """Return how the names of all instances and snapshots of a session begin."""
    return f"pytest-{run}-"


def root() -> str:
    """Return the folder that has a folder per session."""
    return os.path.join(paths.state_root(), "testing")


def end(run: str) -> tuple[list[str], list[str]]:
    """Remove what a session has made; return the names of instances it keeps, and a text for each thing left behind.

    What was left behind by a test is removed too, except a snapshot whose name is not the session's.
    """
    folder = os.path.join(root(), run)
    if not os.path.isdir(folder):
        return [], []
    names = [name for name in instance.names() if name.startswith(prefix(run))]
    kept = [name for name in names if os.path.exists(os.path.join(folder, name + KEPT))]
    left = [_removed(name) for name in names if name not in kept]
    for name in record.names():
        if name.startswith(prefix(run)):
            left += _ended(name)
        elif text := _of_test(name, run):
            left.append(text)
    filetree.remove_tree(folder)
    return kept, left


def sweep() -> None:
    """Do the same for sessions that were killed."""
    with suppress(FileNotFoundError):
        for run in os.listdir(root()):
            with suppress(OSError):  # another command may have its lock, or have removed it
                fd = os.open(os.path.join(root(), run), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    end(run)
                finally:
                    os.close(fd)


def _removed(name: str) -> str:
    try:
        vmctl.find(name).remove()
    except NotFoundError:
        pass
    except VmctlError as error:
        return f"the instance {name}, which cannot be removed: {error}"
    return f"the instance {name}, removed now"


def _ended(name: str) -> list[str]:
    """Remove a golden snapshot, or let it end with the last of the instances that are kept."""
    try:
        found = record.find(name)
        if found.users():
            record.write(found._replace(temporary=True))
        else:
            snapshot.find(name).remove()
    except NotFoundError:
        pass
    except (VmctlError, OSError) as error:
        return [f"the snapshot {name}, which cannot be removed: {error}"]
    return []


def _of_test(name: str, run: str) -> str:
    with suppress(VmctlError):
        if record.find(name).origin.startswith(prefix(run)):
            return f"the snapshot {name}, which a test has taken; `vmctl snapshot rm {name}`"
    return ""
