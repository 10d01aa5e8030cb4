"""Make the tar of a file or a folder in which somebody else may exchange files, folders and links meanwhile.

No link is followed: each name is opened in its open folder, with O_NOFOLLOW, and only what was opened counts
(openat(2)). So nothing outside the folder is read. A file of another kind is not waited for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from vmctl.copying.tar import END, FILE, FOLDER, HARD_LINK, PART, SYMLINK, Entry, Write, header, padding
from vmctl.errors import VmctlError
from vmctl.named import NamedTuple

TOP = b"."  # the name of a folder that is copied; what is in it begins with ./
ONE = b"file"  # the name of anything else
FOLDERS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILES = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OF_KERNEL = "is made by the kernel when it is read: `vmctl exec NAME -- cat FILE` prints it"
_EXCHANGED = "was exchanged meanwhile"
_SPECIAL = {stat.S_IFCHR: "3", stat.S_IFBLK: "4", stat.S_IFIFO: "6"}


class Rules(NamedTuple):
    """What is kept of the files."""

    owners: bool = False  # else root owns all
    setuid: bool = False  # the bits setuid and setgid
    special: bool = False  # FIFOs and devices, without which a tar is made otherwise

    def entry(self, name: bytes, kind: str, status: os.stat_result, *, size: int = 0, target: bytes = b"") -> Entry:
        """Return the entry of a file."""
        mode = stat.S_IMODE(status.st_mode) & (0o7777 if self.setuid else 0o1777)
        uid, gid = (status.st_uid, status.st_gid) if self.owners else (0, 0)
        return Entry(name, kind, mode, size, target, uid, gid, max(0, int(status.st_mtime)))


class Packer:
    """Writes one tar. `refuses` returns whether the content of an open file is not to be read."""

    def __init__(self, write: Write, rules: Rules, refuses: Callable[[int], bool] = lambda fd: False) -> None:
        self._write, self._rules, self._refuses = write, rules, refuses
        self._names: dict[tuple[int, int], bytes] = {}  # inode -> the first name, for hard links
        self.left_out: list[str] = []

    def one(self, parent: int, name: str) -> None:
        """Write the tar of a name in an open folder: what it is decides. Raises OSError."""
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            fd = os.open(name, FOLDERS, dir_fd=parent)
            try:
                self.folder(fd)
            finally:
                os.close(fd)
            return
        self._add_if_same(parent, name, ONE)
        if self.left_out:
            raise VmctlError(f"{name} {self.left_out.pop().partition(' ')[2]}")
        self._write(END)

    def folder(self, fd: int) -> None:
        """Write the tar of an open folder. Raises OSError."""
        self._write(header(self._rules.entry(TOP, FOLDER, os.fstat(fd))))
        self._inside(fd, TOP)
        self._write(END)

    def _inside(self, top: int, name: bytes) -> None:
        """Write what is in a folder; not recursive, for a tree can be deeper than Python's stack."""
        waiting = [(top, name, sorted(os.listdir(top), reverse=True))]
        try:
            while waiting:
                fd, path, names = waiting[-1]
                if not names:
                    waiting.pop()
                    if fd != top:
                        os.close(fd)
                    continue
                one = names.pop()
                inner = self._entered(fd, one, path + b"/" + os.fsencode(one))
                if inner is not None:
                    waiting.append(inner)
        finally:
            for fd, _, _ in waiting:
                if fd != top:
                    os.close(fd)

    def _entered(self, parent: int, name: str, shown: bytes) -> tuple[int, bytes, list[str]] | None:
        """Write an entry; return the folder if it is one, open."""
        try:
            fd = os.open(name, FOLDERS, dir_fd=parent)
        except FileNotFoundError:  # removed meanwhile
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            with suppress(FileNotFoundError):
                self._add_if_same(parent, name, shown)
            return None
        try:
            if self._refuses(fd):
                self._leave_out(shown, _OF_KERNEL)
                os.close(fd)
                return None
            self._write(header(self._rules.entry(shown, FOLDER, os.fstat(fd))))
            return fd, shown, sorted(os.listdir(fd), reverse=True)
        except BaseException:
            os.close(fd)
            raise

    def _add_if_same(self, parent: int, name: str, shown: bytes) -> None:
        try:
            self._add(parent, name, shown)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ELOOP):  # readlink(2), open(2): of another kind by now
                raise
            self._leave_out(shown, _EXCHANGED)

    def _add(self, parent: int, name: str, shown: bytes) -> None:
        """Write the entry of what is not a folder."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            target = os.fsencode(os.readlink(name, dir_fd=parent))
            self._write(header(self._rules.entry(shown, SYMLINK, status, target=target)))
        elif kind == stat.S_IFREG:
            fd = os.open(name, _FILES, dir_fd=parent)
            try:
                self._file(fd, shown)
            finally:
                os.close(fd)
        elif kind in _SPECIAL and self._rules.special:
            self._write(header(self._rules.entry(shown, _SPECIAL[kind], status)))
        else:
            self._leave_out(shown, _EXCHANGED if kind == stat.S_IFDIR else "is not a file, a folder or a link")

    def _file(self, fd: int, shown: bytes) -> None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):  # exchanged since the look
            self._leave_out(shown, _EXCHANGED)
            return
        if self._refuses(fd):
            self._leave_out(shown, _OF_KERNEL)
            return
        first = self._names.setdefault((status.st_dev, status.st_ino), shown) if status.st_nlink > 1 else shown
        if first != shown:
            self._write(header(self._rules.entry(shown, HARD_LINK, status, target=first)))
            return
        self._write(header(self._rules.entry(shown, FILE, status, size=status.st_size)))
        left = status.st_size
        while left:  # so many bytes, even if it grows or shrinks meanwhile
            part = os.read(fd, min(PART, left)) or bytes(min(PART, left))
            left -= len(part)
            self._write(part)
        self._write(padding(status.st_size))

    def _leave_out(self, shown: bytes, why: str) -> None:
        self.left_out.append(f"{os.fsdecode(shown)} {why}")
