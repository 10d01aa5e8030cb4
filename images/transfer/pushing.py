"""Pushes images to registries: writes an OCI layout into a stage, which skopeo compresses and sends."""

from __future__ import annotations

from images.layer.progress import Progress, meter
from images.store import reference, store
from images.store.staging import staging
from images.transfer import exporting, registry
from images.transfer.registry import Access
from vmctl.errors import DeadlineError, SpecError

_STALLED_S = 300.0  # a registry may need long to store a layer


def push(name: str, target: str, access: Access, progress: Progress) -> str:
    """Send an image under the name `target` and return its digest there.

    Raises NotFoundError, SpecError for an invalid name or a disk image, VmctlError (see registry.py).
    """
    image = store.find(name)
    ref = reference.parse(target or image.name)
    if ref.digest:
        raise SpecError(f"{target or image.name} has a digest; push to a tag")
    registry.check_authfile(access)
    with staging() as stage:
        size_bytes = exporting.write_layout(image, stage.path("layout"), stage, progress)
        tick = registry.watch_transfer(
            meter(progress, f"sending {ref.repository}", size_bytes),
            lambda pid: _transferred_bytes(pid, size_bytes),
            _STALLED_S,
            DeadlineError(f"{ref.registry} has accepted no data for {_STALLED_S:g} s", hint="try again later"),
        )
        return registry.upload(ref, stage.path("layout"), access, tick)


def _transferred_bytes(pid: int, size_bytes: int) -> tuple[int, ...]:
    """Return how much of `size_bytes` a process has read, then all it has read and written, sockets included.

    See proc_pid_io(5).
    """
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            values = dict(line.split(": ") for line in file.read().splitlines())
        read, written = int(values["rchar"]), int(values["wchar"])
    except (OSError, KeyError, ValueError):
        return 0, -1, -1
    return min(read, size_bytes), read, written
