"""Kernels for guests: Debian's cloud kernel, unpacked without installing it, the host's own, or one from a path."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import NamedTuple

from images import deb, store
from images.image import architecture
from vmctl.errors import NotFoundError
from vmctl.run import run


class Kernel(NamedTuple):
    """A kernel that can be booted directly, and its modules."""

    name: str  # as the workload asks for it: debian, host, or a path
    release: str  # as `uname -r` shows it
    vmlinuz: str
    modules: str  # the folder .../lib/modules/<release>, with modules.dep


def find(name: str) -> Kernel:
    """Return a kernel: `debian`, `host`, or the path of a kernel image. Raises NotFoundError, with what to do."""
    if name == "debian":
        release = _default_release()
        return _kernel(name, store.path("kernels", release, f"boot/vmlinuz-{release}"), release)
    if name == "host":
        release = os.uname().release
        return _kernel(name, _first(f"/boot/vmlinuz-{release}", f"/lib/modules/{release}/vmlinuz"), release)
    if "/" in name:
        return _kernel(name, os.path.abspath(name), _release(name))
    raise NotFoundError(f"there is no kernel {name}", hint="`debian`, `host`, or a path such as /boot/vmlinuz-6.1.0")


def fetch_debian() -> Kernel:
    """Fetch the newest kernel behind Debian's linux-image-cloud package, unless it is there, and return it.

    Raises UnavailableError where packages cannot be fetched.
    """
    package = deb.dependency(f"linux-image-cloud-{architecture()}", "linux-image-")
    release = package.removeprefix("linux-image-")
    with store.locked("kernel.lock"):
        if not os.path.isdir(store.path("kernels", release)):
            _unpack(package, release)
        link = store.path("kernels", ".debian")
        with suppress(FileNotFoundError):
            os.unlink(link)  # left by a crash
        os.symlink(release, link)
        os.replace(link, store.path("kernels", "debian"))
    return find("debian")


def _unpack(package: str, release: str) -> None:
    """Make the folder kernels/<release> whole or not at all."""
    from shutil import rmtree

    temporary = store.path("kernels", ".new")
    rmtree(temporary, ignore_errors=True)  # left by a crash
    try:
        os.makedirs(temporary)
        deb.fetch(package, temporary)
        if not os.path.exists(os.path.join(temporary, "lib")):  # packages since Debian 13
            os.symlink("usr/lib", os.path.join(temporary, "lib"))
        run(["depmod", "-b", temporary, release])  # the package has no modules.dep: it is made at installation
        os.rename(temporary, store.path("kernels", release))
    finally:
        rmtree(temporary, ignore_errors=True)


def _default_release() -> str:
    try:
        return os.readlink(store.path("kernels", "debian"))
    except OSError:
        raise NotFoundError(
            "Debian's kernel is not in the store", hint="`vmctl image kernel` fetches it; `kernel: host` is the host's"
        ) from None


def _kernel(name: str, vmlinuz: str, release: str) -> Kernel:
    """Return the kernel, with the modules from the same tree as its image, else the host's."""
    if not os.path.isfile(vmlinuz):
        raise NotFoundError(f"there is no kernel image {vmlinuz}", hint="`vmctl image kernel` fetches Debian's")
    tree = os.path.dirname(os.path.dirname(vmlinuz))
    folders = [os.path.join(root, "lib/modules", release) for root in (tree, "/")]
    modules = _first(*folders)
    if not os.path.exists(os.path.join(modules, "modules.dep")):
        raise NotFoundError(
            f"the kernel {vmlinuz} has no modules", hint=f"modules.dep was looked for in {' and '.join(folders)}"
        )
    return Kernel(name, release, vmlinuz, modules)


def _first(*places: str) -> str:
    """Return the first of the paths that exists, else the first."""
    return next((path for path in places if os.path.exists(path)), places[0])


def _release(vmlinuz: str) -> str:
    """Return the release an x86 kernel image states in its header (Linux: arch/x86/boot.rst), else its file name."""
    try:
        with open(vmlinuz, "rb") as file:
            head = file.read(0x8000)
    except OSError as error:
        raise NotFoundError(f"the kernel image {vmlinuz} cannot be read: {error.strerror}") from None
    if head[0x202:0x206] == b"HdrS":
        offset = struct.unpack_from("<H", head, 0x20E)[0] + 0x200
        return head[offset:].split(b"\0")[0].split()[0].decode()
    return os.path.basename(vmlinuz).partition("-")[2]
