"""Unused data of the store: `image prune` and `prune` remove it, `df` reports its size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from images.kernels import booted, initrd, inventory, moduledisk, uncompressed
from images.layer import mounts, unpacked
from images.recipes import caches
from images.store import staging, store
from images.transfer import downloads
from vmctl import leases
from vmctl.errors import ConflictError, NotFoundError
from vmctl.linux import filetree

IMAGE, STEP, FILE = "image", "build step", "file"
DOWNLOAD, KERNEL, INITRD, MODULES, UNPACKED = "download", "kernel", "initrd", "modules", "unpacked layer"
UNCOMPRESSED = "uncompressed kernel"
CACHE = "build cache"
TEMPLATE = "template"


class Item(NamedTuple):
    """An object to remove, and the number of bytes that its removal frees or has freed."""

    kind: str
    name: str
    size_bytes: int


def unused(*, everything: bool, without: Iterable[str] = ()) -> list[Item]:
    """Return the unused data of the store and its caches.

    That is: images without a name, files that belong to no image, build steps whose layers no image has, interrupted
    downloads, kernels of Debian that a newer kernel has replaced, initrds, disks with modules and uncompressed kernels
    that no start will use, and for an ordinary user unpacked layers that no image has. `everything`: also images that
    no instance uses, all build steps, the caches of `RUN --mount=type=cache`, and the templates of guests. `without`:
    instances that are removed before.
    """
    found = [*_images(set(without), everything=everything)]
    found += [Item(FILE, file, _allocated([file])) for file in store.unreferenced()]
    found += [Item(DOWNLOAD, path, size_bytes) for path, size_bytes in downloads.sizes().items()]
    found += [
        Item(KERNEL, name, filetree.allocated_bytes(store.path("kernels", name))) for name in inventory.outdated()
    ]
    if everything:
        found += [Item(CACHE, folder, filetree.allocated_bytes(folder)) for folder in caches.folders()]
        found += [Item(TEMPLATE, folder, filetree.allocated_bytes(folder)) for folder in booted.folders()]
    return found + stale_of_kernels() + unpacked_layers(everything=everything, without=without)


def unpacked_layers(*, everything: bool, without: Iterable[str] = ()) -> list[Item]:
    """Return the unpacked layers of an ordinary user that no instance uses, and if not `everything`, no image has."""
    needed = mounts.used(set(without))
    if not everything:
        needed |= {layer.key for image in store.ls(hidden=True, unnamed=True) for layer in image.layers}
    return [Item(UNPACKED, path, filetree.allocated_bytes(path)) for path in unpacked.unused(needed)]


def stale_of_kernels() -> list[Item]:
    """Return the initrds, disks with modules and uncompressed kernels that no start will use."""
    found = [Item(INITRD, file, _allocated([file])) for file in initrd.stale()]
    kernels = [kept.kernel for kept in inventory.ls()]
    found += [Item(UNCOMPRESSED, file, _allocated([file])) for file in uncompressed.stale(kernels)]
    return found + [Item(MODULES, file, _allocated([file])) for file in moduledisk.stale(kernels)]


def _images(gone: set[str], *, everything: bool) -> Iterator[Item]:
    images, users = store.ls(hidden=True, unnamed=True), leases.all_users()
    free = [image for image in images if not set(users.get(leases.image(image.digest), ())) - gone]
    doomed = [image for image in free if everything or not image.name or _is_step(image.name)]
    needed = {file for image in images if image not in doomed for file in store.files(image)}
    for image in sorted(doomed, key=lambda image: _is_step(image.name)):
        own = {file for file in store.files(image) - needed if os.path.exists(file)}
        if _is_step(image.name) and not everything and not any(map(_is_content, own)):
            continue  # it takes almost no space, and can save a build step
        needed |= own
        yield Item(STEP if _is_step(image.name) else IMAGE, image.name or image.digest, _allocated(own))


def leftover_bytes() -> int:
    """Return the bytes allocated for files that belong to no image, including interrupted downloads."""
    return _allocated(store.unreferenced()) + sum(downloads.sizes().values())


def remove(items: Iterable[Item]) -> Iterator[Item]:
    """Remove the items and yield each with the bytes freed; an item that is in use by now is kept."""
    for item in items:
        with suppress(NotFoundError, ConflictError):
            yield item._replace(size_bytes=_REMOVE[item.kind](item))


def remove_unfinished() -> int:
    """Remove incomplete files of killed commands, and return the number of bytes freed."""
    return staging.remove_abandoned()


def _image(item: Item) -> int:
    return store.remove(item.name)


def _file(item: Item) -> int:
    return store.delete([item.name])


def _download(item: Item) -> int:
    freed_bytes = downloads.remove(item.name)
    if os.path.exists(item.name):
        raise ConflictError(f"the download {item.name} is in progress")
    return freed_bytes


def _kernel(item: Item) -> int:
    return inventory.remove(item.name)


def _unpacked(item: Item) -> int:
    return item.size_bytes if mounts.remove_unpacked(item.name) else 0


def _cache(item: Item) -> int:
    freed_bytes = caches.remove(item.name)
    if os.path.exists(item.name):
        raise ConflictError(f"the cache {item.name} is in use by a build")
    return freed_bytes


def _cached(item: Item) -> int:
    with suppress(FileNotFoundError):
        os.unlink(item.name)
        return item.size_bytes
    return 0


def _template(item: Item) -> int:
    return booted.remove(item.name)


_REMOVE = {
    IMAGE: _image,
    STEP: _image,
    FILE: _file,
    DOWNLOAD: _download,
    KERNEL: _kernel,
    INITRD: _cached,
    MODULES: _cached,
    UNCOMPRESSED: _cached,
    UNPACKED: _unpacked,
    CACHE: _cache,
    TEMPLATE: _template,
}


def _is_step(name: str) -> bool:
    return name.startswith(".")


def _is_content(file: str) -> bool:
    """Return whether a file of the store is a layer or a disk, not a document."""
    return os.path.basename(os.path.dirname(file)) in ("layers", "disks")


def _allocated(files: Iterable[str]) -> int:
    return sum(map(filetree.allocated_bytes, files))
