"""The index of a bundle.

A bundle is a tar. Its first member `bundle.json` names all others with their SHA-256: each image as its OCI archive or
its disk, and each file of a kernel or a package, compressed.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from images.layer.tarheaders import clean
from images.store.image import ImageError
from images.transfer.archive import Archive, read_document

FORMAT = 1
INDEX = "bundle.json"
KERNEL, PACKAGE = "kernel", "package"
FILE_BYTES_MAX = 1 << 30
PATH_MAX = 500
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+~-]{0,127}")
_SHA256 = re.compile("[0-9a-f]{64}")


class Member(msgspec.Struct, frozen=True):
    """A member of the tar."""

    name: str
    sha256: str


class BundledImage(msgspec.Struct, frozen=True):
    """An image: its name, and its digest in the store."""

    name: str
    digest: str
    member: Member


class BundledFile(msgspec.Struct, frozen=True):
    """A file of a tree; its member is compressed by gzip (RFC 1952)."""

    path: str
    size_bytes: int
    executable: bool
    member: Member


class Tree(msgspec.Struct, frozen=True):
    """A folder of the store: a kernel with its modules, or a package."""

    kind: str  # KERNEL | PACKAGE
    name: str
    files: tuple[BundledFile, ...]


class Index(msgspec.Struct, frozen=True):
    """What `bundle.json` contains. Keys that a later vmctl has added are ignored."""

    format: int
    vmctl: str  # the version that has made it
    architecture: str
    images: tuple[BundledImage, ...] = ()
    trees: tuple[Tree, ...] = ()
    labs: dict[str, str] = {}  # name -> SHA-256 of its file, so that verdicts of two machines can be compared


def read(archive: Archive) -> Index:
    """Return the index of a bundle. Raises ImageError if it is damaged, hostile, or of a later format."""
    if INDEX not in archive:
        raise ImageError(
            f"{archive.where} lacks {INDEX}, so it is not a bundle", hint="`vmctl image import` reads images"
        )
    try:
        found: Any = json.loads(read_document(archive, INDEX))
        if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > FORMAT:
            raise ImageError(f"the bundle {archive.where} was written by a later vmctl")
        index = msgspec.convert(found, Index)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise ImageError(f"{INDEX} in {archive.where} is damaged: {str(error)[:200]}") from None
    _check(index, archive.where)
    return index


def _check(index: Index, where: str) -> None:
    for tree in index.trees:
        if tree.kind not in (KERNEL, PACKAGE) or not _FOLDER_NAME.fullmatch(tree.name):
            raise ImageError(f"{where} has a folder that vmctl does not know: {tree.kind[:40]!r}, {tree.name[:40]!r}")
        for file in tree.files:
            if len(file.path) > PATH_MAX:  # its folders are made, and removed, one by one
                raise ImageError(f"{where} has a file with a name of {len(file.path)} letters; the limit is {PATH_MAX}")
            if not _is_below(file.path):
                raise ImageError(f"{where} has a file outside of its folder: {file.path[:200]!r}")
            if not 0 <= file.size_bytes <= FILE_BYTES_MAX:
                raise ImageError(f"{where} has a file of {file.size_bytes} bytes; the limit is {FILE_BYTES_MAX}")
    for member in members(index):
        if not _SHA256.fullmatch(member.sha256):
            raise ImageError(f"{where} has no SHA-256 of {member.name[:200]!r}")


def _is_below(path: str) -> bool:
    return bool(path) and clean(path) == path and path != "." and not path.startswith("..") and "\0" not in path


def members(index: Index) -> list[Member]:
    """Return all members that the index names."""
    return [one.member for one in index.images] + [file.member for tree in index.trees for file in tree.files]
