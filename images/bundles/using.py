"""Uses bundles: each member is verified in a stage, before the store has any of it."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO, NamedTuple

from images.bundles import index as indexes
from images.bundles.index import KERNEL, PACKAGE, BundledImage, Index, Member, Tree
from images.kernels import kernel
from images.layer.progress import Progress
from images.layer.readers import VerifiedStream
from images.packages import busybox
from images.store import store
from images.store.image import ImageError, architecture
from images.store.staging import Stage, staging
from images.transfer import importing
from images.transfer.archive import Tar
from vmctl.errors import NotFoundError, VmctlError
from vmctl.linux import durable, filetree

IMAGE = "image"
_PART = 1 << 20


class Used(NamedTuple):
    """A part of a bundle, and whether the store has not had it before."""

    kind: str  # IMAGE | KERNEL | PACKAGE
    name: str
    new: bool


def use(path: str, progress: Progress) -> tuple[Index, list[Used]]:
    """Add the content of a bundle to the store. Return its index and its parts.

    A damaged bundle changes nothing. Raises NotFoundError, ImageError.
    """
    with _opened(path) as archive, staging() as stage:
        index = indexes.read(archive)
        if index.architecture != architecture():
            raise ImageError(f"the bundle {path} is for {index.architecture[:40]!r}; this machine is {architecture()}")
        folders = [_unpacked(stage, archive, tree, progress) for tree in index.trees]
        files = [_verified(stage, archive, one.member, progress) for one in index.images]
        used = [_keep_folder(tree, folder) for tree, folder in zip(index.trees, folders, strict=True)]
        used += [_keep_image(one, file, progress) for one, file in zip(index.images, files, strict=True)]
        return index, used


@contextmanager
def _opened(path: str) -> Iterator[Tar]:
    try:
        fd = filetree.open_file(path)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", hint="`vmctl bundle make FILE` makes a bundle") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        yield Tar(file, path)


def _unpacked(stage: Stage, archive: Tar, tree: Tree, progress: Progress) -> str:
    """Return a folder of the stage with the files of a tree. Raises ImageError."""
    top = stage.path(f"{tree.kind}-{tree.name}")
    try:
        os.mkdir(top)
        for number, file in enumerate(tree.files, 1):
            progress(f"{tree.kind} {tree.name}: file {number} of {len(tree.files)}")
            target = os.path.join(top, file.path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(_verified(stage, archive, file.member), "rb") as packed, open(target, "xb") as made:
                _inflate(packed, made, file.size_bytes, f"{file.path[:200]!r} in {archive.where}")
                os.fchmod(made.fileno(), 0o755 if file.executable else 0o644)
    except (FileExistsError, NotADirectoryError):
        raise ImageError(f"{archive.where} has a file of {tree.kind} {tree.name} twice") from None
    return top


def _inflate(packed: BinaryIO, made: BinaryIO, size_bytes: int, what: str) -> None:
    """Write the content of a compressed file, which must have that size. Raises ImageError."""
    left = size_bytes
    try:
        with gzip.GzipFile(fileobj=packed) as content:
            while left >= 0 and (data := content.read(min(_PART, left + 1))):
                left -= len(data)
                made.write(data)
    except (gzip.BadGzipFile, EOFError) as error:
        raise ImageError(f"{what} is damaged: {error}") from None
    if left:
        raise ImageError(f"{what} does not have the {size_bytes} bytes of the index")


def _verified(stage: Stage, archive: Tar, member: Member, progress: Progress = lambda _: None) -> str:
    """Return the path of a copy of a member in the stage. Raises ImageError if its digest is another one."""
    path = stage.path(f"member-{member.sha256}")
    stream, size_bytes = archive.open(member.name)
    what = f"{member.name[:200]!r} in {archive.where}"
    verified = VerifiedStream(
        stream,
        what,
        digest=f"sha256:{member.sha256}",
        size_bytes=size_bytes,
        progress=lambda count: progress(f"{member.name[:40]!r}: {count >> 20} MiB"),
    )
    with closing(stream), open(path, "wb") as file:
        shutil.copyfileobj(verified, file, _PART)
    return path


def _keep_folder(tree: Tree, folder: str) -> Used:
    """Move an unpacked folder into the store, unless it has one of this name. Raises ImageError."""
    if tree.kind == KERNEL:
        return Used(KERNEL, tree.name, kernel.adopt(folder, tree.name))
    if tree.name != busybox.PACKAGE:
        raise ImageError(f"the bundle has a package that vmctl does not use: {tree.name}")
    target = store.path("packages", tree.name)
    with store.locked("packages.lock"):
        if new := not os.path.isdir(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            durable.rename_tree(folder, target)
    return Used(PACKAGE, tree.name, new)


def _keep_image(one: BundledImage, file: str, progress: Progress) -> Used:
    """Import an image, unless the store has it under this name. Raises ImageError if it is another one."""
    try:
        if store.find(one.name).digest == one.digest:
            return Used(IMAGE, one.name, new=False)
    except VmctlError:
        pass  # it is not there, or damaged: then the import replaces it
    found = importing.import_path(file, importing.Options(name=one.name), progress)
    if [image.digest for image in found] != [one.digest]:
        raise ImageError(f"the image {one.name} of the bundle is not {one.digest}, which its index names")
    return Used(IMAGE, one.name, new=True)
