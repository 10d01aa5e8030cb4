"""What a first `up` needs and a fresh host lacks: image `tiny` and Debian's kernel."""

from __future__ import annotations

from collections.abc import Callable

from images.kernels import kernel
from images.packages import deb
from images.recipes import tiny
from images.store import store
from vmctl.errors import NotFoundError


def ensure_defaults(progress: Callable[[str], None]) -> None:
    """Make what is missing of the two, telling `progress` each step in a sentence; of two callers one waits.

    Where packages of Debian cannot be unpacked the kernel is left to the user (`kernel: host`).
    """
    with store.locked("defaults.lock"):
        if _missing(lambda: store.find(tiny.NAME)):
            progress("image tiny: building it from busybox")
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
