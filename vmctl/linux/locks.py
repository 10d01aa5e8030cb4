"""Folders that are locks: of all commands on this host one at a time may change what such a folder holds."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def folder_locked(path: str) -> Iterator[None]:
    """Hold a folder, made where it is missing, removed when left empty (flock(2): a lock ends with its holder)."""
    fd = _lock(path)
    try:
        yield
    finally:
        with suppress(OSError):
            os.rmdir(path)
        os.close(fd)


def remove_unheld(path: str) -> None:
    """Remove such a folder that a killed command has left, if it is empty and nobody holds it now."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rmdir(path)
        finally:
            os.close(fd)


def _lock(path: str) -> int:
    while True:
        os.makedirs(path, mode=0o711, exist_ok=True)
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_still(fd, path):
                return fd
            os.close(fd)  # its last holder removed it while we waited


def _is_still(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
