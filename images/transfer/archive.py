"""What an image archive holds, by name: a folder, or a tar whose files are read where they lie.

The tar is never unpacked: its headers are read once, skipping the contents.
"""

from __future__ import annotations

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

_MEMBERS_MAX = 100_000  # of an image archive: some per layer
_LINKS_MAX = 40
_PART = 1 << 20

# what stands at the top of an image archive, and at the top of a root file system
_ARCHIVE_NAMES = re.compile(r"(blobs|oci-layout|index\.json|manifest\.json|repositories|(sha256:)?[0-9a-f]{64}(\..*)?)")
_ROOT_NAMES = set(
    "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys tmp usr var".split()
)


class Archive(Protocol):
    """Files by name."""

    where: str  # for messages

    def __contains__(self, name: str) -> bool: ...

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file's content, to be read forward, and its size in bytes. Raises ImageError."""


def document(archive: Archive, name: str) -> bytes:
    """Return the content of a small file. Raises ImageError, also for one that is not small."""
    stream, size_bytes = archive.open(name)
    with stream:
        if size_bytes > DOCUMENT_BYTES_MAX:
            raise ImageError(f"{name} in {archive.where} has {size_bytes} bytes; the limit is {DOCUMENT_BYTES_MAX}")
        return stream.read(size_bytes)


class Folder:
    """An archive that is unpacked: an OCI layout, for instance."""

    def __init__(self, path: str) -> None:
        self.where = path

    def __contains__(self, name: str) -> bool:
        return os.path.isfile(self._path(name))

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file's content and its size. Raises ImageError."""
        try:
            # not to wait for the other end of a FIFO
            fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise ImageError(f"{self.where} lacks {name}") from None
        except OSError as error:
            raise ImageError(f"{name} in {self.where} cannot be read: {error.strerror}") from None
        file, status = os.fdopen(fd, "rb"), os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            file.close()
            raise ImageError(f"{name} in {self.where} is not a regular file")
        return file, status.st_size

    def _path(self, name: str) -> str:
        return os.path.join(self.where, _inside(name, self.where))


class Tar:
    """An archive as a tar file, which stays open for as long as its members are read."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.where = where
        self._file = file
        self._size_bytes = os.fstat(file.fileno()).st_size
        self._members: dict[str, Member] = {}
        for count, member in enumerate(members(file, where)):
            self._members[member.name] = member
            if member.offset + member.size_bytes > self._size_bytes:
                raise ImageError(f"{where} is cut off in the middle of {member.name}")
            if count >= _MEMBERS_MAX:
                raise ImageError(f"{where} has more than {_MEMBERS_MAX} files: no image archive has")

    def __contains__(self, name: str) -> bool:
        return clean(name) in self._members

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file's content and its size. Raises ImageError."""
        member = self._find(name)
        section = Section(self._file.fileno(), member.offset, member.size_bytes)
        return io.BufferedReader(section, _PART), member.size_bytes

    def _find(self, name: str) -> Member:
        """Return the file of that name, links followed: `docker save` links layers that several images have."""
        current = _inside(name, self.where)
        for _ in range(_LINKS_MAX):
            member = self._members.get(current)
            if member is None:
                raise ImageError(f"{self.where} lacks {name}")
            if member.kind == SYMLINK:
                current = _inside(posixpath.join(posixpath.dirname(current), member.target), self.where)
            elif member.kind == HARD_LINK:
                current = _inside(member.target, self.where)
            elif member.kind == REGULAR:
                return member
            else:
                break
        raise ImageError(f"{name} in {self.where} is not a regular file")


def holds_images(file: BinaryIO, where: str) -> bool:
    """Return whether a tar is an archive of images rather than a file system, from the first names that tell.

    Raises ImageError for what is no tar.
    """
    for member in members(file, where):
        top = member.name.partition("/")[0]
        if _ARCHIVE_NAMES.fullmatch(top):
            return True
        if top in _ROOT_NAMES:
            return False
    return False


def _inside(name: str, where: str) -> str:
    """Return a name in its plainest form. Raises ImageError for one that leads out of the archive."""
    plain = clean(name)
    if plain in ("", ".", "..") or plain.startswith("../") or name.startswith("/") or "\0" in name:
        raise ImageError(f"{where} refers to a file outside of itself: {name[:200]!r}")
    return plain
