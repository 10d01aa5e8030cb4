"""Disk usage of all images, kernels and caches, and how much of it can be freed."""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

from images.kernels import booted, inventory, uncompressed
from images.layer import unpacked
from images.recipes import caches
from images.store import store
from images.upkeep import prune
from images.upkeep.usage import allocated_bytes, images
from vmctl import paths
from vmctl.linux import filetree


class Total(NamedTuple):
    """All objects of a kind: their number, how many are in use, and the bytes that `prune --all` would free."""

    kind: str
    total: int
    active: int
    size_bytes: int
    shared_bytes: int  # the part of it that several objects share
    reclaimable_bytes: int


def totals() -> list[Total]:
    """Return a total for each kind: images, kernels, cache."""
    return [_images(), _kernels(), _cache()]


def _images() -> Total:
    uses = {use.image.digest: use for use in images()}.values()  # each image once, even if it has several names
    files = {use.image.digest: store.files(use.image) for use in uses}
    owners = Counter(file for some in files.values() for file in some)
    needed = set().union(*(files[use.image.digest] for use in uses if use.users))
    return Total(
        "images",
        len(uses),
        sum(1 for use in uses if use.users),
        allocated_bytes(owners),
        allocated_bytes(file for file, count in owners.items() if count > 1),
        allocated_bytes(owners.keys() - needed),
    )


def _kernels() -> Total:
    kept = [one for one in inventory.ls() if one.origin != "host"]
    outdated = inventory.outdated()
    reclaimable = sum(one.size_bytes for one in kept if one.kernel.name in outdated)
    reclaimable += sum(item.size_bytes for item in prune.stale_of_kernels())
    size_bytes = sum(one.size_bytes for one in kept) + _made_of_kernels()
    return Total("kernels", len(kept), sum(1 for one in kept if one.users), size_bytes, 0, reclaimable)


def _cache() -> Total:
    """Return the total of build steps, downloads, and what can be made again: packages, unpacked layers, caches."""
    builds = _of_builds() - {file for image in store.ls(unnamed=True) for file in store.files(image)}
    leftovers = allocated_bytes(builds) + prune.leftover_bytes()
    unused_layers = sum(item.size_bytes for item in prune.unpacked_layers(everything=True))
    folders = (store.path("packages"), paths.cache_root())
    kept = sum(map(filetree.allocated_bytes, folders)) - _made_of_kernels()
    steps = [image for image in store.ls(hidden=True) if image.name.startswith(".")]
    mounted = allocated_bytes(caches.folders())
    templates = sum(map(filetree.allocated_bytes, booted.folders()))
    kept += filetree.allocated_bytes(unpacked.folder()) + mounted
    return Total("cache", len(steps), 0, leftovers + kept, 0, leftovers + unused_layers + mounted + templates)


def _made_of_kernels() -> int:
    folders = (os.path.join(paths.cache_root(), name) for name in ("initrd", "modules", uncompressed.NAME))
    return sum(map(filetree.allocated_bytes, folders))


def _of_builds() -> set[str]:
    hidden = (image for image in store.ls(hidden=True) if image.name.startswith("."))
    return {file for image in hidden for file in store.files(image)}
