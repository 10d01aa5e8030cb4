"""The static busybox that image `tiny` and the initrd are made of.

It is Debian's, kept in the store and not installed: Debian's busybox-static and busybox exclude each other, and the
host's initramfs wants the latter.
"""

from __future__ import annotations

import os
import struct

from images.packages import deb
from images.store import store
from vmctl.errors import UnavailableError
from vmctl.run import which

PACKAGE = "busybox-static"
_PT_INTERP = 3


def path() -> str:
    """Return the path of a static busybox: the store's, on Debian fetched at first use, or an installed one.

    Raises UnavailableError where there is none.
    """
    kept = store.path("packages", PACKAGE)
    if os.path.isdir(kept):
        return _program(kept)
    return fetch()


def fetch() -> str:
    """Return the newest static busybox: Debian's where it can be fetched, else an installed one."""
    if deb.available():
        return _program(deb.keep(PACKAGE))
    for program in ("busybox.static", "busybox"):
        if (found := which(program)) and _is_static(found):
            return found
    raise UnavailableError("there is no static busybox on this host", hint=f"install the package {PACKAGE} or busybox")


def licence() -> str | None:
    """Return the path of Debian's copyright file for busybox, None where busybox is not Debian's."""
    file = store.path("packages", PACKAGE, f"usr/share/doc/{PACKAGE}/copyright")
    return file if os.path.exists(file) else None


def _program(folder: str) -> str:
    """Return the program in the unpacked package: in bin until Debian 12, in usr/bin since."""
    paths = [os.path.join(folder, place, "busybox") for place in ("bin", "usr/bin")]
    return next((file for file in paths if os.path.exists(file)), paths[0])


def _is_static(file: str) -> bool:
    """Return whether a 64-bit ELF file asks for no loader: none of its program headers is PT_INTERP; see elf(5)."""
    with open(file, "rb") as opened:
        image = opened.read()
    if not image.startswith(b"\x7fELF"):
        return False
    (start,), (size, count) = struct.unpack_from("=Q", image, 32), struct.unpack_from("=HH", image, 54)
    return all(struct.unpack_from("=I", image, start + index * size)[0] != _PT_INTERP for index in range(count))
