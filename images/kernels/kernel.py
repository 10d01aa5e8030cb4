"""Kernels for guests: Debian's cloud kernel, unpacked without installing it, the host's kernel, or the user's.

A kernel in the store is a folder `kernels/NAME` with boot/vmlinuz-RELEASE and lib/modules/RELEASE, as in a package. The
name of a Debian kernel is its release, and `debian` is a link to the newest one.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from images.packages import deb
from images.store import store
from images.store.image import architecture
from vmctl import leases
from vmctl.errors import NotFoundError, SpecError
from vmctl.linux import durable, filetree
from vmctl.programs import run

DEBIAN, HOST = "debian", "host"
NEW = ".new"  # name of a folder that is being prepared
IMAGE = "boot/vmlinuz-"  # followed by the release
ORIGIN = "origin"  # a file that contains the path from which a kernel was copied; a fetched kernel has no such file
FETCH = "`vmctl image kernel fetch` fetches"


class Kernel(NamedTuple):
    """A kernel that can be booted directly, with its modules."""

    name: str  # the name in the workload: debian, host, a kernel in the store, or a path
    release: str  # the output of `uname -r`
    vmlinuz: str
    modules: str  # the folder .../lib/modules/<release>, with modules.dep


def find(name: str) -> Kernel:
    """Return a kernel by `host`, its name in the store, or the path of a kernel image. Raises NotFoundError."""
    if name == HOST:
        release = os.uname().release
        return _kernel(name, _first(f"/boot/vmlinuz-{release}", f"/lib/modules/{release}/vmlinuz"), release)
    if "/" in name:
        return _kernel(name, os.path.abspath(name), release_of(name))
    if release := _release_in_store(name):
        return _kernel(name, os.path.join(folder(name), IMAGE + release), release)
    if name == DEBIAN:
        raise NotFoundError("Debian's kernel is not in the store", hint=f"{FETCH} it; `kernel: host` uses the host's")
    raise NotFoundError(
        f"there is no kernel {name}", hint="`vmctl image kernel ls` lists them; `host` and a path are valid, too"
    )


def lease(name: str, user: leases.User) -> Kernel:
    """Return a kernel and take a lease on it, so that it stays in the store for its user. Raises NotFoundError."""
    with store.locked():  # not the kernels' lock, which is held while a kernel is downloaded
        found = find(name)
        if name != HOST and "/" not in name:
            leases.take(leases.kernel(folder(name)), user)
    return found


def folder(name: str) -> str:
    """Return the folder for a kernel of this name in the store; the link `debian` is resolved."""
    path = store.path("kernels", name)
    return store.path("kernels", os.readlink(path)) if os.path.islink(path) else path


def fetch_debian() -> Kernel:
    """Return the newest kernel of Debian's linux-image-cloud package; fetch it unless the store has it.

    Raises UnavailableError if packages cannot be fetched.
    """
    package = deb.dependency(f"linux-image-cloud-{architecture()}", "linux-image-")
    release = package.removeprefix("linux-image-")
    with store.locked("kernel.lock"):
        if not os.path.isdir(folder(release)):
            _unpack(package, release)
        _name_debian(release)
    return find(DEBIAN)


def adopt(tree: str, name: str) -> bool:
    """Move an unpacked kernel into the store; return False if the store has one of this name.

    It becomes `debian` if it was fetched and the store has none. Raises NotFoundError if the folder is not that of a
    kernel with its modules, SpecError for a name that is not one of the store.
    """
    if name in (DEBIAN, HOST):
        raise SpecError(f"a kernel cannot be added under the name {name}")
    with store.locked("kernel.lock"):
        if os.path.lexists(store.path("kernels", name)):
            return False
        os.makedirs(store.path("kernels"), exist_ok=True)
        release = next(_releases(tree), "")
        _kernel(name, os.path.join(tree, IMAGE + release), release)
        fetched = not os.path.exists(os.path.join(tree, ORIGIN))
        durable.rename_tree(tree, folder(name))
        if fetched and not os.path.lexists(store.path("kernels", DEBIAN)):
            _name_debian(name)
    return True


def _name_debian(name: str) -> None:
    """Let `debian` be the kernel of this name."""
    link, final = (store.path("kernels", f"{dot}{DEBIAN}") for dot in (".", ""))
    with suppress(FileNotFoundError):
        os.unlink(link)  # left by a crash
    os.symlink(name, link)
    os.replace(link, final)


def _unpack(package: str, release: str) -> None:
    """Create the folder kernels/RELEASE completely or not at all."""
    from shutil import rmtree

    temporary = folder(NEW)
    rmtree(temporary, ignore_errors=True)  # left by a crash
    try:
        os.makedirs(temporary)
        deb.fetch(package, temporary)
        if not os.path.exists(os.path.join(temporary, "lib")):  # packages since Debian 13
            os.symlink("usr/lib", os.path.join(temporary, "lib"))
        run(["depmod", "-b", temporary, release])  # the package has no modules.dep; its installation runs depmod
        durable.rename_tree(temporary, folder(release))
    finally:
        rmtree(temporary, ignore_errors=True)


def _release_in_store(name: str) -> str:
    """Return the release of a kernel in the store, "" if the store has no kernel of this name."""
    if name.startswith("."):
        return ""  # a kernel that is being prepared
    return next(_releases(folder(name)), "")


def _releases(tree: str) -> Iterator[str]:
    """Yield the releases of the kernel images in a kernel's folder."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for file in sorted(os.listdir(os.path.join(tree, os.path.dirname(IMAGE)))):
            if file.startswith(os.path.basename(IMAGE)):
                yield file.removeprefix(os.path.basename(IMAGE))


def _kernel(name: str, vmlinuz: str, release: str) -> Kernel:
    """Return the kernel with the modules from the same tree as its image, or else the host's modules."""
    if not os.path.isfile(vmlinuz):
        raise NotFoundError(f"there is no kernel image {vmlinuz}", hint=f"{FETCH} Debian's")
    tree = os.path.dirname(os.path.dirname(vmlinuz))
    folders = [os.path.join(root, "lib/modules", release) for root in (tree, "/")]
    modules = _first(*folders)
    if not os.path.exists(os.path.join(modules, "modules.dep")):
        raise NotFoundError(
            f"the kernel {vmlinuz} has no modules", hint=f"modules.dep is missing in {' and '.join(folders)}"
        )
    return Kernel(name, release, vmlinuz, modules)


def _first(*places: str) -> str:
    """Return the first path that exists, or else the first path."""
    return next((path for path in places if os.path.exists(path)), places[0])


def release_of(vmlinuz: str) -> str:
    """Return the release in the header of an x86 kernel image (Linux: arch/x86/boot.rst), or else in its file name.

    Raises NotFoundError if the image cannot be read or has no release.
    """
    try:
        with open(filetree.open_file(vmlinuz), "rb") as file:
            head = file.read(0x8000)
    except OSError as error:
        raise NotFoundError(f"the kernel image {vmlinuz} cannot be read: {error.strerror}") from None
    release = os.path.basename(vmlinuz).partition("-")[2]
    if head[0x202:0x206] == b"HdrS":
        offset = struct.unpack_from("<H", head, 0x20E)[0] + 0x200
        release = head[offset:].split(b"\0")[0].decode(errors="replace").partition(" ")[0]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+~-]*", release):  # it becomes the name of a folder
        raise NotFoundError(
            f"{vmlinuz} is not a kernel image with a release", hint="use a name such as vmlinuz-6.1.0-1-amd64"
        )
    return release
