"""Disk usage of images: allocated bytes, each file counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from images.store import store
from images.store.image import Image
from vmctl import leases
from vmctl.linux import filetree


class ImageUse(NamedTuple):
    """An image, its size, the part of it that other images share, and its users."""

    image: Image
    size_bytes: int
    shared_bytes: int
    users: list[str]

    @property
    def unique_bytes(self) -> int:
        """The bytes that no other image shares."""
        return self.size_bytes - self.shared_bytes


def images(*, hidden: bool = False) -> list[ImageUse]:
    """Return the images sorted by name, also images without a name; `hidden`: also build steps."""
    every, users = store.ls(unnamed=True, hidden=hidden), leases.all_users()
    found = {image.digest: store.files(image) for image in every}
    owners = Counter(file for files in found.values() for file in files)
    return [
        ImageUse(
            image,
            allocated_bytes(found[image.digest]),
            allocated_bytes(file for file in found[image.digest] if owners[file] > 1),
            users.get(leases.image(image.digest), []),
        )
        for image in every
    ]


def layer_owners(layers: Iterable[str]) -> dict[str, list[str]]:
    """Return layer file -> names of the images that contain the layer."""
    found: dict[str, list[str]] = {path: [] for path in layers}
    for image in store.ls():
        for layer in image.stack:
            if layer.path in found:
                found[layer.path].append(image.name)
    return found


def allocated_bytes(files: Iterable[str]) -> int:
    """Return the bytes allocated for files, each counted once."""
    return sum(filetree.allocated_bytes(file) for file in set(files))
