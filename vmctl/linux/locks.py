"""Folders that are locks: one command on this host at a time may change the content of such a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def folder_locked(path: str) -> Iterator[None]:
    """Lock a folder (flock(2): the lock ends with its holder). Creates it if missing, removes it if left empty."""
    fd = lock(path)
    try:
        yield
    finally:
        try:
            with suppress(OSError):
                os.rmdir(path)
        finally:  # also if a signal interrupts this: else the clean-up would wait for a lock of its own process
            os.close(fd)


def remove_unheld(path: str) -> None:
    """Remove such a folder of a killed command, if it is empty and nobody holds the lock."""
    with suppress(OSError), held_at_once(path):
        os.rmdir(path)


@contextmanager
def held_at_once(path: str) -> Iterator[None]:
    """Hold the lock of an existing folder. Raises BlockingIOError if another process has it, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def lock(path: str, how: int = fcntl.LOCK_EX) -> int:
    """Return the descriptor that holds the lock of a folder, which is created if it is missing; close it to unlock.

    Raises BlockingIOError if `how` has LOCK_NB and another process has the lock, OSError.
    """
    while True:
        os.makedirs(path, mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, how)
                held = _is_still(fd, path)
            except BaseException:
                os.close(fd)
                raise
            if held:
                return fd
            os.close(fd)  # its last holder removed the folder while we waited


def _is_still(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
