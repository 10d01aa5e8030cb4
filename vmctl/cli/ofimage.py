"""What `run` and `create` do with the image before the start, if a command line needs it."""

from __future__ import annotations

from contextlib import suppress

from images.store import store
from vmctl.errors import NotFoundError, SpecError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from vmctl.spec.workload import Workload


def pull(image: str, *, is_kept: bool, quiet: bool) -> None:
    """Download an image, unless one of this name is there and `is_kept`. Raises VmctlError."""
    if is_kept:
        with suppress(NotFoundError):
            store.find(image)
            return
    from images.transfer import pulling
    from images.transfer.registry import Access
    from vmctl.cli import output

    progress = output.Progress(quiet=quiet)
    try:
        pulling.pull(image, Access(None, ""), progress)
    finally:
        progress.clear()


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
