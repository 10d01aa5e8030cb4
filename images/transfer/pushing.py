"""Images to registries: as an OCI layout in a stage, which skopeo compresses and sends."""

from __future__ import annotations

import time
from collections.abc import Callable

from images.layer.progress import Progress, meter
from images.store import reference, store
from images.store.reference import Reference
from images.store.staging import staging
from images.transfer import exporting, registry
from images.transfer.registry import Access
from vmctl.errors import DeadlineError, SpecError

_STALLED_S = 300.0  # a registry may need long to store what it has been sent


def push(name: str, target: str, access: Access, progress: Progress) -> str:
    """Send an image under the name `target` and return its digest there.

    Raises NotFoundError, SpecError for an invalid name or a disk image, VmctlError (see registry.py).
    """
    image = store.find(name)
    ref = reference.parse(target or image.name)
    if ref.digest:
        raise SpecError(f"{target or image.name} is a digest, and only a tag can be pushed to")
    with staging() as stage:
        size_bytes = exporting.write_layout(image, stage.path("layout"), stage, progress)
        return registry.upload(ref, stage.path("layout"), access, _watch(ref, size_bytes, progress))


def _watch(ref: Reference, size_bytes: int, progress: Progress) -> Callable[[int], None]:
    """Return what shows how much of the layout skopeo has read, and ends one that stands still."""
    told = meter(progress, f"sending {ref.repository}", size_bytes)
    last, last_s = (-1, -1), time.monotonic()

    def tick(pid: int) -> None:
        nonlocal last, last_s
        moved = _moved_bytes(pid)
        if moved != last:
            last, last_s = moved, time.monotonic()
        elif time.monotonic() - last_s > _STALLED_S:
            raise DeadlineError(f"{ref.registry} has taken nothing for {_STALLED_S:g} s", hint="try again later")
        told(min(max(moved[0], 0), size_bytes))

    return tick


def _moved_bytes(pid: int) -> tuple[int, int]:
    """Return what a process has read and written so far, sockets included: proc_pid_io(5)."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            values = dict(line.split(": ") for line in file.read().splitlines())
        return int(values["rchar"]), int(values["wchar"])
    except (OSError, KeyError, ValueError):
        return -1, -1
