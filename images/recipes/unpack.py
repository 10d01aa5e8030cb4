"""ADD of an archive: its files go into the target folder, with their owners and modes."""

from __future__ import annotations

import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing

from images.layer.compression import limit_bytes
from images.layer.tarball import ENTRIES_MAX
from images.recipes import tarstream
from images.recipes.placement import Placement
from vmctl.errors import SpecError

_PART = 1 << 20
# of a damaged archive: the library does not expect damaged numbers, nor a chain of many extended headers
_DAMAGE = (
    *(tarfile.TarError, OSError, EOFError, ArithmeticError, LookupError, ValueError, RecursionError),
    *(zlib.error, lzma.LZMAError),
)
# the compressions that Docker unpacks, by their first bytes
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")


def is_archive(path: str) -> bool:
    """Return whether a file of the host is a tar, plain or compressed by gzip, bzip2 or xz; see tar(5)."""
    with open(path, "rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head[257:262] == b"ustar":
        return True
    if not head.startswith(_COMPRESSED):
        return False
    try:
        with tarfile.open(path) as tar:
            return tar.next() is not None
    except _DAMAGE:
        return False


def unpack(placement: Placement, path: str, shown: str, target: str, stack: ExitStack) -> None:
    """Place the files of an archive of the host into the folder `target`; it stays open as long as the stack.

    `shown`: the archive in messages.

    Raises SpecError.
    """
    place = placement.folder(target)
    try:
        tar = stack.enter_context(closing(tarfile.open(path, encoding="utf-8", errors="surrogateescape")))  # noqa: SIM115
        left = limit_bytes(os.path.getsize(path), None)
        for _ in range(ENTRIES_MAX):
            if (info := tar.next()) is None:
                break
            left -= max(0, info.size)
            if left < 0:
                raise SpecError("it unpacks to more than the limit for its compressed size")
            _place(placement, tar, place, info)
        else:
            raise SpecError(f"it has more than {ENTRIES_MAX} entries")
    except SpecError as error:
        raise SpecError(f"{shown}: {error}") from None
    except _DAMAGE as error:
        raise SpecError(f"{shown} is a damaged archive: {error}") from None


def _place(placement: Placement, tar: tarfile.TarFile, place: str, info: tarfile.TarInfo) -> None:
    target = posixpath.join(place, _inside(info.name))
    where = place
    if info.islnk():
        where = placement.place_link(target, posixpath.join(place, _inside(info.linkname)))
    elif (node := tarstream.node(info)) is not None:
        if info.isdir():
            where = placement.place_folder(target, node.attributes, as_is=True)
        else:
            where = placement.place(target, node, lambda: _content(tar, info), as_is=True)
    if not f"{where}/".startswith(f"{place}/" if place else ""):
        raise SpecError(f"an entry leads out of it through a link: {info.name!r}")


def _inside(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SpecError(f"an entry leads out of it: {name!r}")
    return "/".join(parts)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    """Yield a file's content; in the archive's order: otherwise each is searched from the beginning."""
    try:
        file = tar.extractfile(info) if info.isreg() else None
        while file is not None and (data := file.read(_PART)):
            yield data
    except _DAMAGE as error:
        raise SpecError(f"the archive is damaged: {error}") from None
