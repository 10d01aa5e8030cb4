"""Evict files from the page cache, and check whether they really left it.

Only clean pages that no process has mapped can be evicted (posix_fadvise(2), POSIX_FADV_DONTNEED). Pages that a running
program maps, such as the C library, stay. The kernel's caches of names and inodes are not touched.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vmctl.linux import syscalls


class Evicted(NamedTuple):
    """Bytes of some files in the page cache, before and after the eviction."""

    bytes_before: int
    bytes_after: int


def evict(paths: Iterable[str]) -> Evicted | None:
    """Evict files, and all regular files in folders, from the page cache; None if the kernel cannot report the result.

    Missing files are skipped. A link is followed only if it is one of `paths`. Raises OSError.
    """
    os.sync()  # dirty pages would stay
    paths = list(paths)
    before = cached_bytes(paths)
    for fd in _opened(paths):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    after = cached_bytes(paths)
    return None if before is None or after is None else Evicted(before, after)


def cached_bytes(paths: Iterable[str]) -> int | None:
    """Return how many bytes of these files are in the page cache; None before Linux 6.5. Raises OSError."""
    try:
        return sum(map(syscalls.cached_bytes, _opened(paths)))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return None


def _opened(paths: Iterable[str]) -> Iterator[int]:
    """Yield a descriptor of every regular file, each inode once. The next iteration closes it."""
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
