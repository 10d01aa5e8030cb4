"""What each image takes of the disk: allocated bytes, each file counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from images.store import leases, store
from images.store.image import Image
from vmctl.linux import filetree


class ImageUse(NamedTuple):
    """An image: what it takes, how much of that other images have, too, and which instances use it."""

    image: Image
    size_bytes: int
    shared_bytes: int
    users: list[str]

    @property
    def unique_bytes(self) -> int:
        """What only this image has."""
        return self.size_bytes - self.shared_bytes


def images(*, hidden: bool = False) -> list[ImageUse]:
    """Return the images by name, with those that have lost theirs; `hidden`: also the steps of builds."""
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
    """Return for the file of each layer the names of the images that have it."""
    found: dict[str, list[str]] = {path: [] for path in layers}
    for image in store.ls():
        for layer in image.layers:
            if layer.path in found:
                found[layer.path].append(image.name)
    return found


def allocated_bytes(files: Iterable[str]) -> int:
    """Return the bytes allocated for files, each counted once."""
    return sum(filetree.allocated_bytes(file) for file in set(files))
