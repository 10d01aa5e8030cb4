"""What the image store needs of a host, for `vmctl doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from vmctl.needs import Need, Package, program
from vmctl.programs import which

EROFS_UTILS = Package(("mkfs.erofs",), "erofs-utils", "erofs-utils", "erofs-utils")
BUSYBOX = Package(("busybox.static", "busybox"), "busybox-static", "busybox", "busybox")
SKOPEO = Package(("skopeo",), "skopeo", "skopeo", "skopeo")
MMDEBSTRAP = Package(("mmdebstrap",), "mmdebstrap", "mmdebstrap", "mmdebstrap")
QEMU_IMG = Package(("qemu-img",), "qemu-utils", "qemu-img", "qemu-img")
GUESTFISH = Package(("guestfish",), "guestfish", "guestfs-tools", "libguestfs")


def needs() -> Iterator[Need]:
    """Yield what is needed for layers, then what single verbs of `vmctl image` need."""
    yield program("erofs-utils", EROFS_UTILS, "layers")
    yield _busybox()
    yield program("skopeo", SKOPEO, "image pull, push, login", required=False)
    yield program("mmdebstrap", MMDEBSTRAP, "image build of packages", required=False)
    yield program("qemu-img", QEMU_IMG, "image import of disks", required=False)
    yield program("guestfish", GUESTFISH, "image import --as-layer without root", required=False)


def _busybox() -> Need:
    need = program("busybox", BUSYBOX, "tiny, initrd")
    if not need.ok and which("apt-get") and which("dpkg-deb"):
        return need._replace(ok=True, found="fetched from Debian at first use", hint="")
    return need
