"""The defaults that a first `vmctl up` needs on a fresh host: the image `tiny` and Debian's kernel."""

from __future__ import annotations

from collections.abc import Callable

from images.kernels import kernel
from images.packages import deb
from images.recipes import tiny
from images.store import store
from vmctl.errors import NotFoundError


def ensure_defaults(progress: Callable[[str], None]) -> None:
    """Create the missing defaults and report each step to `progress`; a second caller waits for the first.

    If packages of Debian cannot be unpacked here, the kernel is left to the user (`kernel: host`).
    """
    with store.locked("defaults.lock"):
        if _missing(lambda: store.find(tiny.NAME)):
            progress("image tiny: building from busybox")
            tiny.build()
        if deb.available() and _missing(lambda: kernel.find("debian")):
            progress("kernel: fetching Debian's cloud kernel (about 27 MB)")
            kernel.fetch_debian()


def _missing(find: Callable[[], object]) -> bool:
    try:
        find()
    except NotFoundError:
        return True
    return False
