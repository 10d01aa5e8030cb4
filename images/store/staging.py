"""Stages: a command makes its files for the store in one, which no other command sees until they are complete.

A stage is a locked folder of the store. A killed command leaves its stage unlocked; the next command that opens a stage
removes it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import paths
from vmctl.errors import VmctlError
from vmctl.linux.locks import held_at_once


class Stage:
    """A folder that belongs to one command, on the file system of the store."""

    def __init__(self, folder: str, lock: int) -> None:
        self.folder = folder
        self.lock = lock  # its descriptor: a program that inherits it holds the stage as long as it runs

    def path(self, *parts: str) -> str:
        """Return a path in the stage."""
        return os.path.join(self.folder, *parts)


@contextmanager
def staging() -> Iterator[Stage]:
    """Lend a stage, which is removed at the end with all its files. Raises VmctlError, for example on a full disk."""
    from shutil import rmtree

    remove_abandoned()
    try:
        folder, fd = _make()
    except OSError as error:
        raise VmctlError(f"cannot write to the image store {paths.images_root()}: {error.strerror}") from None
    try:
        yield Stage(folder, fd)
    except OSError as error:
        raise VmctlError(f"cannot write to the image store: {error}") from error
    finally:
        rmtree(folder, ignore_errors=True)
        os.close(fd)


def remove_abandoned() -> int:
    """Remove the stages of commands that have ended, and return the number of bytes freed on the disk."""
    from shutil import rmtree

    from vmctl.linux import filetree

    freed_bytes = 0
    for name in _names():
        folder = os.path.join(_root(), name)
        with suppress(FileNotFoundError):  # removed by its owner, or by another command
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                freed_bytes += filetree.allocated_bytes(folder)
                rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(fd)
    return freed_bytes


def abandoned() -> list[str]:
    """Return the stages of commands that have ended."""
    found = []
    for folder in (os.path.join(_root(), name) for name in _names()):
        with suppress(OSError), held_at_once(folder):  # else it is in use, or removed
            found.append(folder)
    return found


def _make() -> tuple[str, int]:
    """Return a new folder and the descriptor that holds its lock."""
    os.makedirs(_root(), mode=0o700, exist_ok=True)
    while True:
        folder = os.path.join(_root(), os.urandom(6).hex())
        os.mkdir(folder, mode=0o700)
        with suppress(FileNotFoundError):  # another command removed it as abandoned before it was locked
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.exists(folder):
                return folder, fd
            os.close(fd)


def _root() -> str:
    return os.path.join(paths.images_root(), "stages")


def _names() -> list[str]:
    try:
        return os.listdir(_root())
    except FileNotFoundError:
        return []
