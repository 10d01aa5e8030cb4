"""Makes bundles."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from images.bundles.index import FORMAT, INDEX, KERNEL, PACKAGE, BundledFile, BundledImage, Index, Member, Tree, members
from images.kernels import kernel
from images.layer.progress import Progress
from images.packages import busybox
from images.store import store
from images.store.image import Image, architecture
from images.store.staging import Stage, staging
from images.transfer import exporting
from vmctl.errors import SpecError
from vmctl.linux import filetree

_LEVEL = 6  # of gzip


class _Folder(NamedTuple):
    """A folder of the store that goes into a bundle."""

    kind: str
    name: str
    path: str
    files: list[str]


def make(
    path: str, images: Sequence[Image], kernel_name: str, labs: Mapping[str, str], version: str, progress: Progress
) -> Index:
    """Write a bundle, whole or not at all, and return its index. Raises NotFoundError, SpecError, OSError.

    `kernel_name` is that of a kernel in the store, "" for none: then the bundle starts no guests.
    """
    folders = [*([_kernel(kernel_name)] if kernel_name else []), *_packages()]
    with staging() as stage, filetree.replacing(path) as new:
        bundled = tuple(_image(stage, number, image, progress) for number, image in enumerate(images))
        trees = tuple(_tree(stage, folder, progress) for folder in folders)
        index = Index(FORMAT, version, architecture(), bundled, trees, dict(labs))
        with open(stage.path(INDEX), "xb") as file:
            file.write(json.dumps(msgspec.to_builtins(index), indent=1).encode())
        _write(new, stage, [INDEX, *(member.name for member in members(index))])
    return index


def _image(stage: Stage, number: int, image: Image, progress: Progress) -> BundledImage:
    name = f"image-{number}"
    if image.disk:
        os.symlink(image.disk, stage.path(name))
    else:
        with open(stage.path(name), "xb") as file:
            exporting.write_archive(image, file, stage, progress, compress="gzip")
    return BundledImage(image.name, image.digest, _member(stage, name))


def _kernel(name: str) -> _Folder:
    """Return a kernel's folder, with the files that a guest needs."""
    if name == kernel.HOST or "/" in name:
        raise SpecError(
            f"the kernel {name} is not in the store", hint=f"`vmctl image kernel add {name}`, then its name"
        )
    found, folder = kernel.find(name), kernel.folder(name)
    files = [kernel.IMAGE + found.release, *_below(folder, os.path.join("lib/modules", found.release))]
    origin = [kernel.ORIGIN] * os.path.exists(os.path.join(folder, kernel.ORIGIN))
    return _Folder(KERNEL, os.path.basename(folder), folder, files + origin)


def _packages() -> Iterator[_Folder]:
    """Yield busybox, of which the initrd of a guest is made, if the store has it."""
    folder = store.path("packages", busybox.PACKAGE)
    if os.path.isdir(folder):
        yield _Folder(PACKAGE, busybox.PACKAGE, folder, list(_below(folder, "")))


def _below(folder: str, within: str) -> Iterator[str]:
    """Yield the regular files below a folder, relative to `folder`, sorted. Links lead to sources outside of it."""
    for place, below, names in os.walk(os.path.join(folder, within)):
        below.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, folder)


def _tree(stage: Stage, folder: _Folder, progress: Progress) -> Tree:
    found = []
    for number, path in enumerate(folder.files):
        progress(f"{folder.kind} {folder.name}: file {number + 1} of {len(folder.files)}")
        source, name = os.path.join(folder.path, path), f"{folder.kind}-{number}"
        with open(source, "rb") as file, open(stage.path(name), "xb") as packed:
            content = file.read()
            packed.write(gzip.compress(content, _LEVEL, mtime=0))  # the same files give the same bundle
        found.append(BundledFile(path, len(content), os.access(source, os.X_OK), _member(stage, name)))
    return Tree(folder.kind, folder.name, tuple(found))


def _member(stage: Stage, name: str) -> Member:
    with open(stage.path(name), "rb") as file:
        return Member(name, hashlib.file_digest(file, "sha256").hexdigest())


def _write(path: str, stage: Stage, names: Sequence[str]) -> None:
    with tarfile.open(path, "x", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name)  # the defaults are owner root and time 0
            info.size = os.path.getsize(stage.path(name))
            with open(stage.path(name), "rb") as content:
                tar.addfile(info, content)
