"""The files of an image archive by name: a folder, or a tar that is read without unpacking.

The headers of the tar are read once, and the contents are skipped.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import re
import stat
from typing import BinaryIO, Protocol

from images.layer.readers import Section
from images.layer.tarheaders import HARD_LINK, REGULAR, SYMLINK, Member, clean, members
from images.store.image import ImageError
from images.transfer.oci import DOCUMENT_BYTES_MAX
from vmctl.linux import syscalls

_MEMBERS_MAX = 100_000  # an image archive has a few per layer
_LINKS_MAX = 40
_PART = 1 << 20

# names at the top of an image archive, and at the top of a root file system
_ARCHIVE_NAMES = re.compile(r"(blobs|oci-layout|index\.json|manifest\.json|repositories|(sha256:)?[0-9a-f]{64}(\..*)?)")
_ROOT_NAMES = set(
    "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr var".split()
)


class Archive(Protocol):
    """Files by name."""

    where: str  # for messages

    def __contains__(self, name: str) -> bool: ...

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a stream of a file's content and its size in bytes. Raises ImageError."""


def read_document(archive: Archive, name: str) -> bytes:
    """Return the content of a small file. Raises ImageError, also if the file is larger than DOCUMENT_BYTES_MAX."""
    stream, size_bytes = archive.open(name)
    with stream:
        if size_bytes > DOCUMENT_BYTES_MAX:
            raise ImageError(f"{name} in {archive.where} has {size_bytes} bytes; the limit is {DOCUMENT_BYTES_MAX}")
        return stream.read(size_bytes)


class Folder:
    """An unpacked archive, such as an OCI layout."""

    def __init__(self, path: str) -> None:
        self.where = path

    def __contains__(self, name: str) -> bool:
        return os.path.isfile(self._path(name))

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file's content and its size; links in the folder lead to nothing outside. Raises ImageError."""
        try:
            fd = self._open(name)
        except FileNotFoundError:
            raise ImageError(f"{self.where} has no file {name}") from None
        except OSError as error:
            raise ImageError(f"{name} in {self.where} cannot be read: {error.strerror}") from None
        file, status = os.fdopen(fd, "rb"), os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            file.close()
            raise ImageError(f"{name} in {self.where} is not a regular file")
        return file, status.st_size

    def _open(self, name: str) -> int:
        top = os.open(self.where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # O_NONBLOCK: do not wait for the other end of a FIFO
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            return syscalls.openat2(_safe_name(name, self.where), flags, resolve=syscalls.RESOLVE_BENEATH, at=top)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise ImageError(f"{name} in {self.where} is a link to a file outside of it") from None
            raise
        finally:
            os.close(top)

    def _path(self, name: str) -> str:
        return os.path.join(self.where, _safe_name(name, self.where))


class Tar:
    """An archive in a tar file, which must stay open while members are read."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.where = where
        self._file = file
        self._size_bytes = os.fstat(file.fileno()).st_size
        self._members: dict[str, Member] = {}
        for count, member in enumerate(members(file, where)):
            self._members[member.name] = member
            if member.offset + member.size_bytes > self._size_bytes:
                raise ImageError(f"{where} is truncated in the middle of {member.name}")
            if count >= _MEMBERS_MAX:
                raise ImageError(f"{where} has more than {_MEMBERS_MAX} files, which is too many for an image archive")

    def __contains__(self, name: str) -> bool:
        return clean(name) in self._members

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file's content and its size. Raises ImageError."""
        member = self._find(name)
        section = Section(self._file.fileno(), member.offset, member.size_bytes)
        return io.BufferedReader(section, _PART), member.size_bytes

    def _find(self, name: str) -> Member:
        """Return the file of that name. Links are followed: `docker save` links layers that several images share."""
        current = _safe_name(name, self.where)
        for _ in range(_LINKS_MAX):
            member = self._members.get(current)
            if member is None:
                raise ImageError(f"{self.where} has no file {name}")
            if member.kind == SYMLINK:
                current = _safe_name(posixpath.join(posixpath.dirname(current), member.target), self.where)
            elif member.kind == HARD_LINK:
                current = _safe_name(member.target, self.where)
            elif member.kind == REGULAR:
                return member
            else:
                break
        raise ImageError(f"{name} in {self.where} is not a regular file")


def is_image_archive(file: BinaryIO, where: str) -> bool:
    """Return whether a tar is an image archive and not a root file system, judged by the first name typical of either.

    Raises ImageError if the file is not a tar.
    """
    for member in members(file, where):
        top = member.name.partition("/")[0]
        if _ARCHIVE_NAMES.fullmatch(top):
            return True
        if top in _ROOT_NAMES:
            return False
    return False


def _safe_name(name: str, where: str) -> str:
    """Return a normalised name. Raises ImageError if it leads out of the archive."""
    normal = clean(name)
    if normal in ("", ".", "..") or normal.startswith("../") or name.startswith("/") or "\0" in name:
        raise ImageError(f"{where} refers to a file outside of itself: {name[:200]!r}")
    return normal
