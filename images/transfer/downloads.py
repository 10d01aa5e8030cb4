"""Download folders, one per image: kept after an interruption, removed after success.

skopeo(1) copies into an OCI layout and skips blobs that are already there. So a complete blob is not fetched again, and
a placeholder, a sparse file of the blob's length, keeps skopeo from fetching a layer that the store has.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import BinaryIO

from images.store import store
from images.store.image import ImageError
from images.transfer.oci import Descriptor
from vmctl.linux import filetree
from vmctl.linux.locks import folder_locked

_BLOBS = os.path.join("blobs", "sha256")
_PLACEHOLDER = ".placeholder"


class Download:
    """The download folder of one image."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self, blob: Descriptor) -> tuple[BinaryIO, int]:
        """Return a blob's content and its size in bytes. Raises ImageError if it was not downloaded."""
        path = self._path(blob)
        if not os.path.isfile(path) or os.path.islink(path):
            raise ImageError(f"the blob {blob.digest} was not downloaded")
        file: BufferedReader = open(path, "rb")  # noqa: SIM115  # the caller closes it
        return file, os.path.getsize(path)

    def add_placeholders(self, blobs: Sequence[Descriptor]) -> None:
        """Add placeholders for blobs; they are symbolic links, which distinguishes them from downloaded blobs."""
        for blob in blobs:
            placeholder = os.path.join(self.folder, f"{blob.size}{_PLACEHOLDER}")
            with open(placeholder, "wb") as file:
                file.truncate(blob.size)
            if not os.path.exists(self._path(blob)):
                os.symlink(os.path.relpath(placeholder, os.path.dirname(self._path(blob))), self._path(blob))

    def downloaded_bytes(self) -> int:
        """Return how many bytes have been downloaded, incomplete blobs included."""
        total = 0
        paths = [self.folder, os.path.join(self.folder, _BLOBS)]
        for entry in (entry for path in paths if os.path.isdir(path) for entry in os.scandir(path)):
            with suppress(FileNotFoundError):  # renamed meanwhile
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and not entry.name.endswith(_PLACEHOLDER):
                    total += status.st_size
        return total

    def discard(self) -> None:
        """Remove the content of the folder."""
        for entry in os.scandir(self.folder):
            filetree.remove_tree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)

    def remove_incomplete(self) -> None:
        """Remove everything but complete blobs: the remains of an interrupted download."""
        os.makedirs(os.path.join(self.folder, _BLOBS), exist_ok=True)
        for folder in (self.folder, os.path.join(self.folder, _BLOBS)):
            for entry in os.scandir(folder):
                if entry.is_symlink() or (folder == self.folder and entry.is_file()):
                    os.unlink(entry.path)

    def _path(self, blob: Descriptor) -> str:
        return os.path.join(self.folder, "blobs", *blob.digest.split(":"))


@contextmanager
def download(digest: str) -> Iterator[Download]:
    """Yield the download folder for a manifest's digest, locked: a second command for the same image waits."""
    with folder_locked(os.path.join(_root(), digest.partition(":")[2])) as _:
        folder = Download(os.path.join(_root(), digest.partition(":")[2]))
        folder.remove_incomplete()
        yield folder


def sizes() -> dict[str, int]:
    """Return folder -> allocated bytes for the folders that interrupted downloads have left."""
    return {path: filetree.allocated_bytes(path) for path in _folders()}


def remove(path: str) -> int:
    """Remove a download folder and return how many bytes that freed; leave a running download alone and return 0."""
    with suppress(FileNotFoundError, BlockingIOError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            freed_bytes = filetree.allocated_bytes(path)
            Download(path).discard()
            os.rmdir(path)
            return freed_bytes
        finally:
            os.close(fd)
    return 0


def _root() -> str:
    return store.path("downloads")


def _folders() -> list[str]:
    try:
        return [os.path.join(_root(), name) for name in os.listdir(_root())]
    except FileNotFoundError:
        return []
