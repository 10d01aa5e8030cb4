"""Downloads under way: a folder for each image, which survives an interruption and goes with success.

skopeo(1) fetches into an OCI layout and leaves alone what that has already. So a blob that is complete is not fetched
again, and for a layer of the store a file of the right length, without content, takes the blob's place.
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


class Download:
    """The folder of one image."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def open(self, blob: Descriptor) -> tuple[BinaryIO, int]:
        """Return a blob's content and its size in bytes. Raises ImageError where it is not there."""
        path = self._path(blob)
        if not os.path.isfile(path) or os.path.islink(path):
            raise ImageError(f"the blob {blob.digest} was not downloaded")
        file: BufferedReader = open(path, "rb")  # noqa: SIM115  # the caller closes it
        return file, os.path.getsize(path)

    def pretend(self, held: Sequence[Descriptor]) -> None:
        """Let it seem that these blobs are there: links, by which they are told from those that are."""
        for blob in held:
            stand_in = os.path.join(self.folder, f"{blob.size}.held")
            with open(stand_in, "wb") as file:
                file.truncate(blob.size)
            if not os.path.exists(self._path(blob)):
                os.symlink(os.path.relpath(stand_in, os.path.dirname(self._path(blob))), self._path(blob))

    def arrived_bytes(self) -> int:
        """Return how much has been downloaded, blobs under way included."""
        total = 0
        for folder in (self.folder, os.path.join(self.folder, _BLOBS)):
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):  # renamed meanwhile
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and not entry.name.endswith(".held"):
                        total += status.st_size
        return total

    def discard(self) -> None:
        """Remove all of it."""
        for entry in os.scandir(self.folder):
            filetree.remove_tree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)

    def tidy(self) -> None:
        """Remove all but the blobs that are complete: what an interruption has left."""
        os.makedirs(os.path.join(self.folder, _BLOBS), exist_ok=True)
        for folder in (self.folder, os.path.join(self.folder, _BLOBS)):
            for entry in os.scandir(folder):
                if entry.is_symlink() or (folder == self.folder and entry.is_file()):
                    os.unlink(entry.path)

    def _path(self, blob: Descriptor) -> str:
        return os.path.join(self.folder, "blobs", *blob.digest.split(":"))


@contextmanager
def download(digest: str) -> Iterator[Download]:
    """Lend the folder for the image whose manifest has that digest, tidied; of two commands one waits."""
    with folder_locked(os.path.join(_root(), digest.partition(":")[2])) as _:
        folder = Download(os.path.join(_root(), digest.partition(":")[2]))
        folder.tidy()
        yield folder


def sizes() -> dict[str, int]:
    """Return the folders that interrupted downloads have left, and the bytes of the disk they take."""
    return {path: filetree.allocated_bytes(path) for path in _folders()}


def remove(path: str) -> int:
    """Remove what an interrupted download has left and return how many bytes that freed: none of one under way."""
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
