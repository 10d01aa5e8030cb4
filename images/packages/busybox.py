"""The static busybox for the image `tiny` and for the initrd.

It is Debian's, unpacked into the store and not installed: Debian's busybox-static and busybox conflict, and the host's
initramfs needs the latter.
"""

from __future__ import annotations

import os
import struct

from images.packages import deb
from images.store import store
from vmctl.errors import UnavailableError
from vmctl.programs import which

PACKAGE = "busybox-static"
_PT_INTERP = 3


def path() -> str:
    """Return the path of a static busybox from the store; if the store has none, the path that `fetch` returns.

    Raises UnavailableError.
    """
    folder = store.path("packages", PACKAGE)
    return _program(folder) if os.path.isdir(folder) else fetch()


def fetch() -> str:
    """Return the path of the newest static busybox: Debian's, or an installed one if the host has no apt-get.

    Raises UnavailableError if there is no static busybox.
    """
    if deb.available():
        return _program(deb.unpack_into_store(PACKAGE))
    for program in ("busybox.static", "busybox"):
        if (found := which(program)) and _is_static(found):
            return found
    raise UnavailableError("there is no static busybox on this host", hint=f"install the package {PACKAGE} or busybox")


def licence() -> str | None:
    """Return the path of Debian's copyright file for busybox, None if the store has no busybox from Debian."""
    file = store.path("packages", PACKAGE, f"usr/share/doc/{PACKAGE}/copyright")
    return file if os.path.exists(file) else None


def _program(folder: str) -> str:
    """Return the path of the program in the unpacked package: in bin up to Debian 12, in usr/bin since then."""
    paths = [os.path.join(folder, place, "busybox") for place in ("bin", "usr/bin")]
    return next((file for file in paths if os.path.exists(file)), paths[0])


def _is_static(file: str) -> bool:
    """Return whether a 64-bit ELF file needs no loader: it has no program header PT_INTERP; see elf(5)."""
    with open(file, "rb") as opened:
        image = opened.read()
    if not image.startswith(b"\x7fELF"):
        return False
    (start,), (size, count) = struct.unpack_from("=Q", image, 32), struct.unpack_from("=HH", image, 54)
    return all(struct.unpack_from("=I", image, start + index * size)[0] != _PT_INTERP for index in range(count))
