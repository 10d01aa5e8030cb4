"""Disk usage of instances: the allocated bytes of their directories, without the layers of their images."""

from __future__ import annotations

from contextlib import suppress

from vmctl.home import Home
from vmctl.linux import filetree
from vmctl.named import NamedTuple
from vmctl.survey import Seen, survey

STOPPED = ("exited", "failed")  # the status of an instance that `prune` removes


class InstanceUse(NamedTuple):
    """An instance as found, and the size of its directory."""

    seen: Seen
    size_bytes: int


def instances() -> list[InstanceUse]:
    """Return the instances by name, also those that cannot be read."""
    found = []
    for seen in survey():
        with suppress(FileNotFoundError):  # removed since it was listed
            found.append(InstanceUse(seen, filetree.allocated_bytes(Home(seen.name, "").directory)))
    return found


def stopped() -> list[InstanceUse]:
    """Return the instances that do not run; an instance that cannot be read is left out, because it may run."""
    return [use for use in instances() if use.seen.status in STOPPED]


def images() -> dict[str, list[str]]:
    """Return the names of the instances of each image, by digest, or by name for instances that have no digest yet.

    They have leases in the image store, unless they are just being created or were created by vmctl 0.1.
    """
    found: dict[str, list[str]] = {}
    for seen in survey():
        if seen.instance is not None:
            image = seen.instance.state.image_digest or seen.instance.work.image
            found.setdefault(image, []).append(seen.name)
    return found
