"""The kernels of this host as the user sees them: listed, added to the store under a name, removed from it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from images.kernels import kernel
from images.kernels.kernel import DEBIAN, HOST, IMAGE, Kernel
from images.kernels.modules import load_order
from images.store import leases, store
from vmctl.errors import ConflictError, NotFoundError, SpecError
from vmctl.linux import filetree
from vmctl.run import run

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+~-]{0,127}"
_ORIGIN = "origin"  # the file that says from where a kernel was copied; one that was fetched has none
_LINKS_TO_SOURCES = ("build", "source")  # of the host that compiled it


class Kept(NamedTuple):
    """A kernel, where it comes from and what it takes."""

    kernel: Kernel
    origin: str  # debian, host, or the path that it was copied from
    size_bytes: int  # allocated in the store; 0 for the host's own
    users: list[str]  # instances whose guests have been started with it


def ls() -> list[Kept]:
    """Return the kernels in the store and the host's own where guests can be given it, by name."""
    found = []
    for name in sorted({*names(), HOST}):
        with suppress(NotFoundError):
            size_bytes = 0 if name == HOST else filetree.allocated_bytes(kernel.folder(name))
            found.append(Kept(kernel.find(name), _origin(name), size_bytes, users(name)))
    return found


def outdated() -> list[str]:
    """Return the names of Debian's kernels that a newer one has replaced and no instance uses."""
    fetched = (name for name in names() if name != DEBIAN and _origin(name) == DEBIAN)
    return [name for name in fetched if not users(name)]


def _origin(name: str) -> str:
    if name == HOST:
        return HOST
    try:
        with open(os.path.join(kernel.folder(name), _ORIGIN), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return DEBIAN


def names() -> list[str]:
    """Return the names of the kernels in the store; the one that `debian` stands for is listed by that name."""
    try:
        listing = [name for name in os.listdir(store.path("kernels")) if not name.startswith(".")]
    except FileNotFoundError:
        return []
    newest = os.path.basename(kernel.folder(DEBIAN)) if DEBIAN in listing else ""
    return sorted(name for name in listing if name != newest)


def users(name: str) -> list[str]:
    """Return the instances whose guests were started with a kernel of the store, by whatever name of it."""
    return leases.users(leases.kernel(kernel.folder(name)))


def add(vmlinuz: str, *, modules: str = "", name: str = "") -> Kernel:
    """Copy a kernel image and its modules into the store, under a name, and return it.

    Without `modules` they are looked for where the image lies and in the host's /lib/modules; the name is the release
    where none is given. Raises SpecError, NotFoundError, ConflictError for a taken name; then the store is as it was.
    """
    found = _given(vmlinuz, modules)
    name = name or found.release
    if not re.fullmatch(_NAME, name) or name in (DEBIAN, HOST):
        raise SpecError(
            f"a kernel cannot be added under the name {name[:200]!r}",
            hint="letters, digits and . _ + ~ -, and neither `debian` nor `host`: `--name`",
        )
    with store.locked("kernel.lock"):
        if os.path.lexists(store.path("kernels", name)):
            raise ConflictError(
                f"there is a kernel {name} already", hint=f"`vmctl image kernel rm {name}`, or `--name`"
            )
        _copy(found, name)
    return kernel.find(name)


def remove(name: str, *, force: bool = False) -> int:
    """Remove a kernel from the store and return how many bytes of the disk that freed.

    Raises NotFoundError, ConflictError where an instance uses it, unless `force`: a guest that runs has it in memory.
    """
    with store.locked("kernel.lock"):
        if not name or "/" in name or name.startswith(".") or not os.path.lexists(store.path("kernels", name)):
            raise NotFoundError(f"the store has no kernel {name}", hint="`vmctl image kernel ls` lists them")
        if (used_by := users(name)) and not force:
            raise ConflictError(
                f"the kernel {name} is used by {', '.join(used_by)}", hint=f"`vmctl rm {used_by[0]}` first"
            )
        here = kernel.folder(name)
        freed_bytes = filetree.allocated_bytes(here)
        for link in (store.path("kernels", name), store.path("kernels", DEBIAN)):
            if os.path.islink(link) and kernel.folder(os.path.basename(link)) == here:
                os.unlink(link)
        doomed = store.path("kernels", kernel.NEW)
        filetree.remove_tree(doomed)  # left by a crash
        os.rename(here, doomed)
        filetree.remove_tree(doomed)
    return freed_bytes


def _given(vmlinuz: str, modules: str) -> Kernel:
    """Return the kernel that a user points at. Raises NotFoundError."""
    if not modules:
        return kernel.find(os.path.realpath(vmlinuz))
    release = kernel.release_of(vmlinuz)
    places = [os.path.join(modules, below, release) for below in ("lib/modules", "usr/lib/modules", "")]
    for place in (modules, *places):
        if os.path.isdir(os.path.join(place, "kernel")) or os.path.exists(os.path.join(place, "modules.dep")):
            return Kernel(vmlinuz, release, os.path.abspath(vmlinuz), os.path.abspath(place))
    raise NotFoundError(
        f"there are no modules of the kernel {release} in {modules}", hint=f"looked for: {', '.join(places)}"
    )


def _copy(found: Kernel, name: str) -> None:
    """Make the folder of the store, whole or not at all. Raises OSError."""
    import shutil

    new = store.path("kernels", kernel.NEW)
    filetree.remove_tree(new)  # left by a crash
    own_modules = os.path.join(new, "lib/modules", found.release)
    try:
        os.makedirs(os.path.dirname(own_modules))
        os.makedirs(os.path.join(new, os.path.dirname(IMAGE)))
        shutil.copy2(found.vmlinuz, os.path.join(new, IMAGE + found.release))
        skip = shutil.ignore_patterns(*_LINKS_TO_SOURCES)
        shutil.copytree(found.modules, own_modules, symlinks=True, ignore=skip)
        if not os.path.exists(os.path.join(own_modules, "modules.dep")):
            run(["depmod", "-b", new, found.release])
        load_order(found._replace(modules=own_modules), ())  # or the first start would find it incomplete
        with open(os.path.join(new, _ORIGIN), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(found.vmlinuz)
        os.rename(new, store.path("kernels", name))
    finally:
        filetree.remove_tree(new)
