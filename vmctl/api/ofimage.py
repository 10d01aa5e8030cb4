"""What a start by flags does with its image, if they ask for it: for `run`, `create` and the Python API."""

from __future__ import annotations

from contextlib import suppress

from images.store import store
from vmctl.errors import NotFoundError, SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmctl.spec.workload import Workload


def refuse_platform(platform: str) -> None:
    """Raise SpecError if this host is of another platform."""
    from images.store import platforms

    if not platforms.parse(platform).is_host():
        host = platforms.parse("")
        raise SpecError(
            f"--platform: this host, {host}, cannot run {platform}", hint=f"leave it out, or --platform {host}"
        )


def pull(image: str, *, is_kept: bool, progress: Callable[[str], None]) -> None:
    """Download an image, unless one of this name is there and `is_kept`. Raises VmctlError."""
    if is_kept:
        with suppress(NotFoundError):
            store.find(image)
            return
    from images.transfer import pulling
    from images.transfer.registry import Access

    pulling.pull(image, Access(None, ""), progress)


def refuse_misplaced(image: str, flag: str) -> None:
    """Raise SpecError for a flag after the image, unless an entrypoint of the image gets it as its argument."""
    if not store.find(image).config.entrypoint:
        raise SpecError(f"{flag} comes after IMAGE, so it would be the command", hint="vmctl run FLAGS IMAGE -- CMD")


def with_exposed(work: Workload) -> Workload:
    """Return a workload with the ports that its image exposes. Raises NotFoundError, SpecError."""
    from vmctl.net import ports

    found = ports.exposed(store.find(work.image).config.exposed_ports, work.ports)
    if found and work.network == "none":
        raise SpecError("--publish-all: with --network none there are no ports to publish")
    return work._replace(ports=(*work.ports, *found))
