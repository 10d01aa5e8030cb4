"""Files and trees of files: replaced whole, the bytes they take on the disk, and their removal."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# a tree that is being changed: an entry was removed or exchanged; or it is deeper than PATH_MAX
_CHANGED = (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP)


def allocated_bytes(path: str) -> int:
    """Return the bytes allocated for a file or a tree (stat(2)); a file with several names counts once.

    What is mounted in it is left out. The tree may change meanwhile: no link is followed that takes a folder's place.
    """
    seen: set[tuple[int, int]] = set()
    total = 0
    try:
        stack = [(path, os.stat(os.path.dirname(os.path.abspath(path))).st_dev)]
    except FileNotFoundError:
        return 0
    while stack:
        current, device = stack.pop()  # of the folder that it is in
        try:
            status = os.lstat(current)
            if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                stack.extend((os.path.join(current, name), device) for name in _names(current))
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total


def _names(folder: str) -> list[str]:
    fd = os.open(folder, _FOLDER)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def remove_tree(path: str, last: Collection[str] = ()) -> None:
    """Remove a tree if it exists; links in it are removed, never followed. Raises OSError.

    The files of the names in `last` are removed when all others are gone.

    Works at any depth: a workload can make a tree that is deeper than PATH_MAX or than Python's recursion limit. So a
    folder that is not empty is moved up to the top before it is emptied. `shutil.rmtree` is not used also because it
    imports three compression libraries.
    """
    if not os.path.lexists(path):
        return
    top = os.open(path, _FOLDER)
    try:
        while names := os.listdir(top):
            for name in set(names) - set(last) or names:
                if not _unlinked(name, top) and not _was_empty(name, top):
                    _empty(name, top)
                    os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _unlinked(name: str, folder: int) -> bool:
    """Remove a file and return True; leave a folder and return False."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True


def _was_empty(name: str, folder: int) -> bool:
    """Remove an empty folder and return True; leave any other one and return False."""
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _empty(name: str, top: int) -> None:
    """Remove the content of a folder in `top`; folders in it are removed if they are empty, else moved to `top`."""
    folder = os.open(name, _FOLDER, dir_fd=top)
    try:
        for number, inner in enumerate(os.listdir(folder)):
            if not _unlinked(inner, folder) and not _was_empty(inner, folder):
                _move_up(inner, folder, top, number)
    finally:
        os.close(folder)


def _move_up(name: str, folder: int, top: int, number: int) -> None:
    """Move a folder that is not empty to `top`; if the disk has no space for its new name, empty it where it is."""
    try:
        os.rename(name, f"{os.urandom(8).hex()}.{number}", src_dir_fd=folder, dst_dir_fd=top)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _empty(name, folder)
        os.rmdir(name, dir_fd=folder)


def open_file(path: str) -> int:
    """Return a descriptor of a regular file, to read. Raises OSError for anything else, which is not waited for.

    Opening a FIFO would wait for a writer, and a device has no end.
    """
    fd = os.open(path, _FILE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return fd


def size_bytes(path: str) -> int:
    """Return the length of a file in bytes, 0 if it does not exist."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def write_atomic(path: str, content: str | bytes) -> None:
    """Replace a file's content so that a reader, or a crash, sees the old or the new one, never a part."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: str, *, durable: bool = False) -> Iterator[str]:
    """Yield a temporary name next to a file; rename it to the file afterwards, or remove it if the body raises.

    `durable`: its content is on the disk before the rename, see durable.py.
    """
    temporary = f"{path}.{os.getpid()}.new"
    try:
        yield temporary
        if durable:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # a full disk, a folder in the place of the file, an interruption
        with suppress(OSError):
            os.unlink(temporary)
        raise


def is_being_written(name: str) -> bool:
    """Return whether a name is a temporary one of `replacing`, and the process that writes the file still runs."""
    return (pid := _writer(name)) != "" and os.path.exists(f"/proc/{pid}")


def is_abandoned(name: str) -> bool:
    """Return whether a name is a temporary one of `replacing`, and the process that wrote the file has ended."""
    return (pid := _writer(name)) != "" and not os.path.exists(f"/proc/{pid}")


def _writer(name: str) -> str:
    """Return the pid in a temporary name of `replacing`, "" for any other name."""
    pid = name.removesuffix(".new").rpartition(".")[2]
    return pid if name.endswith(".new") and pid.isdigit() else ""
