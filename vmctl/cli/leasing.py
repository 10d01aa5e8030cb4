"""Before a command changes the image store, every instance has a lease of its image."""

from __future__ import annotations

from contextlib import suppress

from vmctl import leases
from vmctl.errors import VmctlError
from vmctl.instances import instance


def complete() -> None:
    """Take the missing leases: an instance that is being created has no lease yet, and vmctl 0.1 took none."""
    from images.store import store

    for name in instance.names():
        with suppress(VmctlError, OSError):  # unreadable, being removed, or its image no longer exists
            inst = instance.load(name)
            if not any(entry["kind"] == leases.KIND for entry in inst.journal.entries()):
                store.lease(inst.image, inst)
