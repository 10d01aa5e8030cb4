"""What nobody needs any more, found and removed: by `image prune`, `prune`, and in the figures of `df`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from images.kernels import initrd, inventory, moduledisk
from images.store import leases, staging, store
from images.store.image import Image
from images.transfer import downloads
from vmctl.errors import ConflictError, NotFoundError
from vmctl.linux import filetree

IMAGE, STEP, FILE = "image", "build step", "file"
DOWNLOAD, KERNEL, INITRD, MODULES = "download", "kernel", "initrd", "modules"


class Item(NamedTuple):
    """One thing to remove, and what that gives back of the disk, or gave."""

    kind: str
    name: str
    size_bytes: int


def unused(*, everything: bool, without: Iterable[str] = (), others: Mapping[str, Sequence[str]] = {}) -> list[Item]:
    """Return what is in the store and its caches for nobody.

    That is: images that have lost their name and files that no image has, steps of builds that no image came of,
    interrupted downloads, kernels of Debian that a newer one has replaced, initrds and disks with modules that no
    start will ask for. `everything`: also images that no instance was started from, and all steps of builds.
    `without`: instances that will be gone by then. `others`: users without a lease, by the name or digest of an image.
    """
    found = [*_images(set(without), others, everything=everything)]
    found += [Item(FILE, file, _allocated([file])) for file in store.unreferenced()]
    found += [Item(DOWNLOAD, path, size_bytes) for path, size_bytes in downloads.sizes().items()]
    found += [
        Item(KERNEL, name, filetree.allocated_bytes(store.path("kernels", name))) for name in inventory.outdated()
    ]
    return found + stale_of_kernels()


def stale_of_kernels() -> list[Item]:
    """Return what has been made of kernels and that no start will ask for: initrds, disks with modules."""
    found = [Item(INITRD, file, _allocated([file])) for file in initrd.stale()]
    kernels = (kept.kernel for kept in inventory.ls())
    return found + [Item(MODULES, file, _allocated([file])) for file in moduledisk.stale(kernels)]


def _images(gone: set[str], others: Mapping[str, Sequence[str]], *, everything: bool) -> Iterator[Item]:
    images, users = store.ls(hidden=True, unnamed=True), leases.all_users()

    def is_free(image: Image) -> bool:
        known = users.get(leases.image(image.digest), ()), others.get(image.digest, ()), others.get(image.name, ())
        return not {name for names in known for name in names} - gone

    free = list(filter(is_free, images))
    doomed = [image for image in free if everything or not image.name or _is_step(image.name)]
    needed = {file for image in images if image not in doomed for file in store.files(image)}
    for image in sorted(doomed, key=lambda image: _is_step(image.name)):
        own = {file for file in store.files(image) - needed if os.path.exists(file)}
        if _is_step(image.name) and not everything and not any(map(_is_content, own)):
            continue  # it costs nothing, and may save a build
        needed |= own
        yield Item(STEP if _is_step(image.name) else IMAGE, image.name or image.digest, _allocated(own))


def leftover_bytes() -> int:
    """Return what the files in the store take that no image has, interrupted downloads among them."""
    return _allocated(store.unreferenced()) + sum(downloads.sizes().values())


def remove(items: Iterable[Item]) -> Iterator[Item]:
    """Remove the items and yield each with the bytes it gave back; one that has found a use meanwhile stays."""
    for item in items:
        with suppress(NotFoundError, ConflictError):
            yield item._replace(size_bytes=_REMOVE[item.kind](item))


def remove_unfinished() -> int:
    """Remove what killed commands have left half made, and return the bytes that gave back."""
    return staging.remove_abandoned()


def _image(item: Item) -> int:
    return store.remove(item.name)


def _file(item: Item) -> int:
    return store.delete([item.name])


def _download(item: Item) -> int:
    freed_bytes = downloads.remove(item.name)
    if os.path.exists(item.name):
        raise ConflictError(f"the download {item.name} is under way")
    return freed_bytes


def _kernel(item: Item) -> int:
    return inventory.remove(item.name)


def _cached(item: Item) -> int:
    with suppress(FileNotFoundError):
        os.unlink(item.name)
        return item.size_bytes
    return 0


_REMOVE = {
    IMAGE: _image,
    STEP: _image,
    FILE: _file,
    DOWNLOAD: _download,
    KERNEL: _kernel,
    INITRD: _cached,
    MODULES: _cached,
}


def _is_step(name: str) -> bool:
    return name.startswith(".")


def _is_content(file: str) -> bool:
    """Return whether a file of the store is more than a few lines of JSON."""
    return os.path.basename(os.path.dirname(file)) in ("layers", "disks")


def _allocated(files: Iterable[str]) -> int:
    return sum(map(filetree.allocated_bytes, files))
