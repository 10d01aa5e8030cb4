"""Trees of files: the bytes they really take, and their removal."""

from __future__ import annotations

import errno
import os

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def allocated_bytes(path: str) -> int:
    """Return the bytes allocated for a file, or for a tree, where a file with several names counts once (stat(2))."""
    seen: set[tuple[int, int]] = set()
    total = 0
    stack = [path]
    while stack:
        current = stack.pop()
        try:
            status = os.lstat(current)
            if os.path.isdir(current) and not os.path.islink(current) and not os.path.ismount(current):
                stack.extend(entry.path for entry in os.scandir(current))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):  # gone, or deeper than a path can tell
                raise
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total


def remove_tree(path: str) -> None:
    """Remove a tree, if it is there; links in it are removed, never followed. Raises OSError.

    However deep it is: a workload can make one deeper than a path may be long, or a function may call itself. So a
    folder that is in the way is moved up before it is emptied. And `shutil.rmtree` imports three compression libraries.
    """
    if not os.path.lexists(path):
        return
    top = os.open(path, _FOLDER)
    try:
        while names := os.listdir(top):
            for name in names:
                if not _unlinked(name, top):
                    _empty(name, top)
                    os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _unlinked(name: str, folder: int) -> bool:
    """Remove what is no folder and return True; return False for a folder."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True


def _empty(name: str, top: int) -> None:
    """Remove what is in a folder of `top`; the folders in it are removed where they are empty, else moved to `top`."""
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        for number, inner in enumerate(os.listdir(folder)):
            if not _unlinked(inner, folder):
                try:
                    os.rmdir(inner, dir_fd=folder)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
                    moved = f"{os.urandom(8).hex()}.{number}"
                    os.rename(inner, moved, src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)


def size_bytes(path: str) -> int:
    """Return how long a file is, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
