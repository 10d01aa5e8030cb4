"""What each instance takes of the disk: allocated bytes of its own files; what it reads of its image is not counted."""

from __future__ import annotations

from contextlib import suppress

from vmctl.home import Home
from vmctl.linux import filetree
from vmctl.named import NamedTuple
from vmctl.survey import Seen, survey

STOPPED = ("exited", "failed")  # the status of an instance that `prune` removes


class InstanceUse(NamedTuple):
    """An instance as it was found, and its own files."""

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
    """Return the instances that do not run; one that cannot be read may run."""
    return [use for use in instances() if use.seen.status in STOPPED]


def images() -> dict[str, list[str]]:
    """Return the instances of each image, by its digest, or by its name while an instance has not looked for it yet.

    They have leases in the image store, unless they are just being created or were made by vmctl 0.1.
    """
    found: dict[str, list[str]] = {}
    for seen in survey():
        if seen.instance is not None:
            image = seen.instance.state.image_digest or seen.instance.work.image
            found.setdefault(image, []).append(seen.name)
    return found
