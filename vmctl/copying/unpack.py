"""Write the files of a tar below a folder. The tar is hostile, and somebody else may exchange links in the folder.

Each part of a name is opened in its open parent, with O_NOFOLLOW; `..` is refused. So nothing is written outside. A
file that is there is replaced, not written to: it may be a link, or have another name elsewhere. FIFOs and devices are
left out, and setuid and setgid bits are dropped unless the rules keep them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from vmctl.copying.pack import FOLDERS, Rules
from vmctl.copying.tar import FILE, FOLDER, HARD_LINK, LABEL, SPECIAL, SYMLINK, Entry, Reader, TarError
from vmctl.errors import ConflictError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NAMED_MAX = 20  # so many of those that are left out are named


class Unpacker:
    """Writes the entries of one tar below an open folder."""

    def __init__(self, folder: int, reader: Reader, rules: Rules) -> None:
        self._top, self._reader, self._rules = folder, reader, rules
        self._made: set[tuple[int, int]] = set()  # files of this tar: a hard link leads to no other one
        self._folders: list[tuple[list[bytes], Entry]] = []  # whose modes and times are set at the end
        self._open: tuple[list[bytes], int] | None = None  # the folder of the last entry
        self.left_out: list[str] = []

    def all(self, entries: Iterator[Entry]) -> None:
        """Write all entries by their names. Raises TarError, ConflictError, OSError."""
        try:
            for entry in entries:
                parts = parts_of(entry.name)
                if parts:
                    self._add(parts, entry)
                elif entry.kind == FOLDER:
                    self._folders.append(([], entry))
            for parts, entry in reversed(self._folders):
                self._finish_folder(parts, entry)
        finally:
            self._close()

    def one(self, entry: Entry, name: str) -> None:
        """Write one entry, which is not a folder, by another name. Raises the errors of `all`."""
        try:
            self._add([os.fsencode(name)], entry)
        finally:
            self._close()

    def _add(self, parts: list[bytes], entry: Entry) -> None:
        parent, name = self._parent(parts[:-1]), parts[-1]
        if entry.kind == FOLDER:
            self._folder(parent, name, parts, entry)
        elif entry.kind == FILE:
            self._file(parent, name, entry)
        elif entry.kind == SYMLINK:
            self._make_room(parent, name)
            os.symlink(entry.target, name, dir_fd=parent)
            self._own(parent, name, entry)
        elif entry.kind == HARD_LINK:
            self._hard_link(parent, name, entry)
        elif entry.kind != LABEL:
            self._leave_out(entry.name, f"is a {SPECIAL.get(entry.kind, 'file of unknown kind')}")

    def _parent(self, parts: list[bytes]) -> int:
        """Return the open folder of an entry; missing ones are made."""
        if self._open is not None and self._open[0] == parts:
            return self._open[1]
        self._close()
        self._open = (parts, self._walk(parts))
        return self._open[1]

    def _walk(self, parts: list[bytes], *, make: bool = True) -> int:
        fd = os.dup(self._top)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=fd)
                below = _folder(part, fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _folder(self, parent: int, name: bytes, parts: list[bytes], entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            os.close(_folder(name, parent))  # one that is there keeps its owner and mode
            return
        self._folders.append((parts, entry))

    def _finish_folder(self, parts: list[bytes], entry: Entry) -> None:
        with suppress(ConflictError, FileNotFoundError):  # another entry or somebody else has replaced it
            fd = self._walk(parts, make=False)
            try:
                self._settle(fd, entry)
            finally:
                os.close(fd)

    def _file(self, parent: int, name: bytes, entry: Entry) -> None:
        fd = self._new(parent, name)
        try:
            for part in self._reader.content():
                if part.strip(b"\0"):
                    _write(fd, part)
                else:
                    os.lseek(fd, len(part), os.SEEK_CUR)  # a hole
            os.ftruncate(fd, entry.size)
            self._settle(fd, entry)
            status = os.fstat(fd)
            self._made.add((status.st_dev, status.st_ino))
        finally:
            os.close(fd)

    def _new(self, parent: int, name: bytes) -> int:
        """Return a new file; one that is a mount point, such as /etc/hosts of a container, is written to."""
        try:
            self._make_room(parent, name)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            fd = os.open(name, _OLD, dir_fd=parent)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise
            os.ftruncate(fd, 0)
            return fd
        return os.open(name, _NEW, 0o600, dir_fd=parent)

    def _make_room(self, parent: int, name: bytes) -> None:
        """Remove a file or a link of this name. Raises ConflictError for anything else."""
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            what = "folder" if stat.S_ISDIR(mode) else "device, FIFO or socket"
            raise ConflictError(f"{os.fsdecode(name)} cannot be replaced: it is a {what}")
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)

    def _hard_link(self, parent: int, name: bytes, entry: Entry) -> None:
        *above, last = parts_of(entry.target) or [b""]
        try:
            folder = self._walk(above, make=False)
        except FileNotFoundError:
            raise _not_in_it(entry) from None
        try:
            status = os.stat(last, dir_fd=folder, follow_symlinks=False)
            if (status.st_dev, status.st_ino) not in self._made:
                raise _not_in_it(entry)
            self._make_room(parent, name)
            os.link(last, name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise _not_in_it(entry) from None
        finally:
            os.close(folder)

    def _settle(self, fd: int, entry: Entry) -> None:
        """Set owner, mode and time of an open file or folder; the owner first, because that drops setuid."""
        if self._rules.owners:
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode & (0o7777 if self._rules.setuid else 0o777))
        with suppress(OverflowError):
            os.utime(fd, (entry.mtime, entry.mtime))

    def _own(self, parent: int, name: bytes, entry: Entry) -> None:
        if self._rules.owners:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)

    def _leave_out(self, name: bytes, why: str) -> None:
        if len(self.left_out) < _NAMED_MAX:
            self.left_out.append(f"{_shown(name)} {why}")


def parts_of(name: bytes) -> list[bytes]:
    """Return the parts of a name below a folder. Raises TarError if it leads out of it."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise TarError(f"the tar leads out of the folder: {_shown(name)}")
    return parts


def _not_in_it(entry: Entry) -> TarError:
    return TarError(f"the tar has a hard link to {_shown(entry.target)}, which is not a file of it")


def _folder(name: bytes, parent: int) -> int:
    """Return an open folder. Raises ConflictError if it is a link or something else."""
    try:
        return os.open(name, FOLDERS, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise ConflictError(f"{_shown(name)} is in the way: it is not a folder") from None


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _shown(name: bytes) -> str:
    return os.fsdecode(name[:200])
