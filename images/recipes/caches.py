"""`RUN --mount=type=cache`: folders that builds of one user share; images do not contain them.

A folder is locked (flock(2)) as long as a step uses it. What is in it was written by the commands of builds, so it can
be trusted as far as the least of these: see docs/images.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from images.recipes.steps import RunMount
from images.store import store
from vmctl.linux.filetree import allocated_bytes, remove_tree
from vmctl.linux.locks import held_at_once, lock

_DATA = "data"
_SHARED = {"shared": fcntl.LOCK_SH, "locked": fcntl.LOCK_EX, "private": fcntl.LOCK_EX | fcntl.LOCK_NB}


@contextmanager
def lent(mount: RunMount) -> Iterator[str]:
    """Lend the folder of a cache, by its id; `locked` waits for other steps, `private` takes one that is free."""
    fd, folder = _locked(mount)
    try:
        yield _data(folder, mount)
    finally:
        os.close(fd)


def _locked(mount: RunMount) -> tuple[int, str]:
    for number in count():
        name = hashlib.sha256(f"{mount.id}\0{number}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
        folder = os.path.join(store.path("caches"), name)
        with suppress(BlockingIOError):
            return lock(folder, _SHARED[mount.sharing]), folder
    raise AssertionError


def _data(folder: str, mount: RunMount) -> str:
    """Return the folder that is mounted, with the owner and mode that the first step gives it."""
    path, new = os.path.join(folder, _DATA), os.path.join(folder, f"new-{os.urandom(6).hex()}")
    if not os.path.isdir(path):
        os.mkdir(new, 0o700)
        os.chown(new, mount.uid, mount.gid)
        os.chmod(new, mount.mode)
        with suppress(OSError):  # another step was first
            os.rename(new, path)
    return path


def folders() -> list[str]:
    """Return the folders of all caches."""
    try:
        return [store.path("caches", name) for name in sorted(os.listdir(store.path("caches")))]
    except FileNotFoundError:
        return []


def remove(folder: str) -> int:
    """Remove a cache, unless a step uses it, and return how many bytes that freed."""
    with suppress(FileNotFoundError, BlockingIOError), held_at_once(folder):
        freed_bytes = allocated_bytes(folder)
        remove_tree(folder)
        return freed_bytes
    return 0
