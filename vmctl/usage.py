"""Disk usage of instances: the allocated bytes of their directories, without the layers of their images."""

from __future__ import annotations

from contextlib import suppress

from vmctl.instances.folder import Home
from vmctl.linux import filetree
from vmctl.named import NamedTuple
from vmctl.survey import ENDED, Seen, survey

STOPPED = ENDED  # statuses of instances that `prune` removes


class InstanceUse(NamedTuple):
    """An instance as found, and the size of its directory."""

    seen: Seen
    size_bytes: int


def instances() -> list[InstanceUse]:
    """Return the instances sorted by name, also instances that cannot be read."""
    found = []
    for seen in survey():
        with suppress(FileNotFoundError):  # removed meanwhile
            found.append(InstanceUse(seen, filetree.allocated_bytes(Home(seen.name, "").directory)))
    return found
