"""The kernels that guests can use: listing them, adding them to the store under a name, removing them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from images.kernels import kernel
from images.kernels.kernel import DEBIAN, HOST, IMAGE, ORIGIN, Kernel
from images.kernels.modules import load_order
from images.store import store
from vmctl import leases
from vmctl.errors import ConflictError, NotFoundError, SpecError, VmctlError
from vmctl.linux import durable, filetree
from vmctl.programs import run

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+~-]{0,127}"
_LINKS_TO_SOURCES = ("build", "source")  # they point to folders of the host that compiled the kernel


class Kept(NamedTuple):
    """A kernel, its origin, its size and its users."""

    kernel: Kernel
    origin: str  # debian, host, or the path from which it was copied
    size_bytes: int  # allocated in the store; 0 for the host's kernel
    users: list[str]  # instances whose guests were started with it


def ls() -> list[Kept]:
    """Return the kernels in the store, and the host's kernel if guests can use it, sorted by name."""
    found = []
    for name in sorted({*names(), HOST}):
        with suppress(NotFoundError):
            size_bytes = 0 if name == HOST else filetree.allocated_bytes(kernel.folder(name))
            found.append(Kept(kernel.find(name), _origin(name), size_bytes, users(name)))
    return found


def outdated() -> list[str]:
    """Return the names of Debian's kernels that a newer kernel has replaced and that no instance uses."""
    fetched = (name for name in names() if name != DEBIAN and _origin(name) == DEBIAN)
    return [name for name in fetched if not users(name)]


def _origin(name: str) -> str:
    if name == HOST:
        return HOST
    try:
        with open(os.path.join(kernel.folder(name), ORIGIN), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return DEBIAN


def names() -> list[str]:
    """Return the names of the kernels in the store; the kernel to which `debian` links is listed as `debian`."""
    try:
        listing = [name for name in os.listdir(store.path("kernels")) if not name.startswith(".")]
    except FileNotFoundError:
        return []
    newest = os.path.basename(kernel.folder(DEBIAN)) if DEBIAN in listing else ""
    return sorted(name for name in listing if name != newest)


def users(name: str) -> list[str]:
    """Return the instances whose guests were started with a kernel of the store, under any of its names."""
    return leases.users(leases.kernel(kernel.folder(name)))


def add(vmlinuz: str, *, modules: str = "", name: str = "") -> Kernel:
    """Copy a kernel image and its modules into the store, under a name, and return the kernel.

    By default the modules are searched next to the image and in the host's /lib/modules, and the name is the release.
    Raises SpecError, NotFoundError, ConflictError if the name is taken; then the store is unchanged.
    """
    found = _given(vmlinuz, modules)
    name = name or found.release
    if not re.fullmatch(_NAME, name) or name in (DEBIAN, HOST):
        raise SpecError(
            f"a kernel cannot be added under the name {name[:200]!r}",
            hint="`--name NAME`, with letters, digits and . _ + ~ -, but not `debian` or `host`",
        )
    with store.locked("kernel.lock"):
        if os.path.lexists(store.path("kernels", name)):
            raise ConflictError(
                f"the store already has a kernel {name}",
                hint=f"`vmctl image kernel rm {name}`, or use another `--name`",
            )
        _copy(found, name)
    return kernel.find(name)


def remove(name: str, *, force: bool = False) -> int:
    """Remove a kernel from the store and return the number of bytes freed on the disk.

    Raises NotFoundError, and ConflictError if an instance uses it, unless `force`: a running guest has it in memory.
    """
    with store.locked("kernel.lock"):
        doomed = store.path("kernels", kernel.NEW)
        filetree.remove_tree(doomed)  # left by a crash
        with store.locked():  # a start takes its lease before this, or finds no kernel
            _refuse_removal(name, force=force)
            here = kernel.folder(name)
            for link in (store.path("kernels", name), store.path("kernels", DEBIAN)):
                if os.path.islink(link) and kernel.folder(os.path.basename(link)) == here:
                    os.unlink(link)
            os.rename(here, doomed)
        freed_bytes = filetree.allocated_bytes(doomed)
        filetree.remove_tree(doomed)
    return freed_bytes


def _refuse_removal(name: str, *, force: bool) -> None:
    if not name or "/" in name or name.startswith(".") or not os.path.lexists(store.path("kernels", name)):
        raise NotFoundError(f"the store has no kernel {name}", hint="`vmctl image kernel ls` lists them")
    if (used_by := users(name)) and not force:
        hint = f"`vmctl rm {used_by[0]}` first, or `vmctl image kernel rm --force {name}`"
        raise ConflictError(f"the kernel {name} is used by {', '.join(used_by)}", hint=hint)


def _given(vmlinuz: str, modules: str) -> Kernel:
    """Return the kernel that the user specified. Raises NotFoundError."""
    if not modules:
        return kernel.find(os.path.realpath(vmlinuz))
    release = kernel.release_of(vmlinuz)
    places = [os.path.join(modules, below, release) for below in ("lib/modules", "usr/lib/modules", "")]
    for place in (modules, *places):
        if os.path.isdir(os.path.join(place, "kernel")) or os.path.exists(os.path.join(place, "modules.dep")):
            return Kernel(vmlinuz, release, os.path.abspath(vmlinuz), os.path.abspath(place))
    raise NotFoundError(
        f"no modules of the kernel {release} in {modules}", hint=f"one of these folders must exist: {', '.join(places)}"
    )


def _copy(found: Kernel, name: str) -> None:
    """Create the kernel's folder in the store, completely or not at all. Raises OSError."""
    import shutil

    new = store.path("kernels", kernel.NEW)
    filetree.remove_tree(new)  # left by a crash
    own_modules = os.path.join(new, "lib/modules", found.release)
    try:
        os.makedirs(os.path.dirname(own_modules))
        os.makedirs(os.path.join(new, os.path.dirname(IMAGE)))
        _copy_file(found.vmlinuz, os.path.join(new, IMAGE + found.release))
        skip = shutil.ignore_patterns(*_LINKS_TO_SOURCES)
        shutil.copytree(found.modules, own_modules, symlinks=True, ignore=skip, copy_function=_copy_file)
        if not os.path.exists(os.path.join(own_modules, "modules.dep")):
            run(["depmod", "-b", new, found.release])
        load_order(found._replace(modules=own_modules), ())  # otherwise the first start would find it incomplete
        with open(os.path.join(new, ORIGIN), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(found.vmlinuz)
        durable.rename_tree(new, store.path("kernels", name))
    except shutil.Error as error:
        raise VmctlError(f"modules of the kernel cannot be copied: {error.args[0][0][2]}") from None
    finally:
        filetree.remove_tree(new)


def _copy_file(source: str, target: str) -> None:
    """Copy a regular file with its mode and times; shutil.copy2 would read a device without an end."""
    import shutil

    with open(filetree.open_file(source), "rb") as file, open(target, "xb") as copy:
        shutil.copyfileobj(file, copy)
    shutil.copystat(source, target)
