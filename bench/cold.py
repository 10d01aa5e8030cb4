"""Taking files out of the page cache, and looking whether they really went.

Only clean pages that no process has mapped can go (posix_fadvise(2), POSIX_FADV_DONTNEED): what a running program
maps, such as the C library, stays. The kernel's own memory of names and inodes is not touched.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vmctl.linux import syscalls


class Evicted(NamedTuple):
    """Bytes of some files that were in the page cache, before and after they were to leave it."""

    bytes_before: int
    bytes_after: int


def evict(paths: Iterable[str]) -> Evicted | None:
    """Take files, and all regular files in folders, out of the page cache; None where nobody can say what went.

    What is missing is passed over; a link is followed only where it is one of `paths`. Raises OSError.
    """
    os.sync()  # a page that has still to be written would stay
    paths = list(paths)
    before = cached_bytes(paths)
    for fd in _opened(paths):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    after = cached_bytes(paths)
    return None if before is None or after is None else Evicted(before, after)


def cached_bytes(paths: Iterable[str]) -> int | None:
    """Return how much of these files is in the page cache, in bytes; None before Linux 6.5. Raises OSError."""
    try:
        return sum(map(syscalls.cached_bytes, _opened(paths)))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return None


def _opened(paths: Iterable[str]) -> Iterator[int]:
    """Yield a descriptor of every regular file, each inode once; it is closed when the next one is asked for."""
    seen: set[tuple[int, int]] = set()
    for path in _files(paths):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                yield fd
        finally:
            os.close(fd)


def _files(paths: Iterable[str]) -> Iterator[str]:
    for path in map(os.path.realpath, paths):
        if os.path.isdir(path):
            for folder, _, names in os.walk(path):
                yield from filter(_is_regular, (os.path.join(folder, name) for name in names))
        elif os.path.isfile(path):
            yield path


def _is_regular(path: str) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)
