"""Read a log that its writer rotates: `NAME.1` is the older part of `NAME`.

Everything is read in blocks, so a log of any size takes no memory. The writer is vmctl/logs/logwriter.py. A file that
is open keeps its content when it is renamed or replaced, so a reader that follows a log loses nothing in a rotation.
"""

from __future__ import annotations

import os
from contextlib import suppress

BLOCK_BYTES = 1 << 16
OLDER = ".1"


class LogReader:
    """A position in a log, which `read` moves on. A log that does not exist yet is an empty one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._parts: list[int] = []  # open files, the oldest first; the position is in the first

    def read(self) -> bytes:
        """Return the next bytes; none if everything that was written so far has been read."""
        while self._parts or self._open_newer():
            if data := os.read(self._parts[0], BLOCK_BYTES):
                return data
            if len(self._parts) == 1 and not self._open_newer():
                self._rewind_if_cut()
                return b""
            if data := os.read(self._parts[0], BLOCK_BYTES):  # it was written between the read above and the rotation
                return data
            os.close(self._parts.pop(0))
        return b""

    def place(self) -> tuple[int, int]:
        """Return the open file of which `read` has returned bytes, and the position after them."""
        return self._parts[0], os.lseek(self._parts[0], 0, os.SEEK_CUR)

    def skip_to_tail(self, lines: int) -> None:
        """Move to the last `lines` lines of what was written so far; reads only these, from the end."""
        self.close()
        self._open_newer()
        missing = lines + _ends_in_newline(self._parts) if lines else 0
        kept: list[int] = []
        while self._parts and (missing or not kept):
            kept.insert(0, self._parts.pop())
            missing = _seek_back(kept[0], missing)
        self.close()
        self._parts = kept

    def skip_to(self, inode: int, position: int) -> None:
        """Move to a position in the part with this inode; to the begin if there is no such part any more."""
        self.close()
        self._open_newer()
        for number, fd in enumerate(self._parts):
            if os.fstat(fd).st_ino == inode:
                os.lseek(fd, position, os.SEEK_SET)
                for older in self._parts[:number]:
                    os.close(older)
                del self._parts[:number]
                return

    def close(self) -> None:
        """Close the files; repeatable."""
        while self._parts:
            os.close(self._parts.pop())

    def _open_newer(self) -> bool:
        """Open the parts that follow the last one, or all parts if none is open; return whether there are any."""
        found: list[int] = []
        for path in (self.path, self.path + OLDER):  # in this order: a rotation in between changes the first into that
            with suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                known = [*self._parts[-1:], *found[:1]]
                if any(os.path.sameopenfile(fd, other) for other in known):
                    os.close(fd)
                    break
                found.insert(0, fd)
        self._parts += found
        return bool(found)

    def _rewind_if_cut(self) -> None:
        """Begin again if the writer has emptied the file, because it could not make a new one."""
        fd = self._parts[0]
        if os.fstat(fd).st_size < os.lseek(fd, 0, os.SEEK_CUR):
            os.lseek(fd, 0, os.SEEK_SET)


def last_bytes(path: str, size: int) -> bytes:
    """Return the last bytes of a file, at most `size`; none if it does not exist."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except FileNotFoundError:
        return b""


def _ends_in_newline(parts: list[int]) -> bool:
    for fd in reversed(parts):
        if size := os.fstat(fd).st_size:
            return os.pread(fd, 1, size - 1) == b"\n"
    return False


def _seek_back(fd: int, newlines: int) -> int:
    """Move to the byte after the newline that is the given number from the end, 0 for the end.

    If the file has fewer, move to its begin and return how many are missing.
    """
    begin = os.lseek(fd, 0, os.SEEK_END)
    if not newlines:
        return 0
    while begin > 0:
        end, begin = begin, max(0, begin - BLOCK_BYTES)
        block = os.pread(fd, end - begin, begin)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            newlines -= 1
            if not newlines:
                os.lseek(fd, begin + at + 1, os.SEEK_SET)
                return 0
    os.lseek(fd, 0, os.SEEK_SET)
    return newlines
