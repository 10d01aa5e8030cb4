"""A kernel's modules: their files, load order and decompressed content."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from images.kernels.kernel import Kernel
from vmctl.errors import NotFoundError, VmctlError
from vmctl.linux import filetree
from vmctl.programs import run


def load_order(kernel: Kernel, names: Sequence[str], optional: Collection[str] = ()) -> list[str]:
    """Return the files of the modules and of all their dependencies, each after its dependencies.

    Modules that are built into the kernel are left out, and `optional` ones that it lacks. Raises NotFoundError if it
    lacks another one.
    """
    dependencies = _dependencies(kernel)
    builtin = _builtin(kernel)
    order: dict[str, None] = {}
    for name in names:
        if (wanted := _key(name)) in builtin or (name in optional and wanted not in dependencies):
            continue
        if wanted not in dependencies:
            raise NotFoundError(f"the kernel {kernel.release} has no module {name}", hint=f"see {kernel.modules}")
        own, *needed = dependencies[wanted]
        # modules.dep lists direct and indirect dependencies; they are loaded from right to left: depmod(8)
        order.update(dict.fromkeys([*reversed(needed), own]))
    return [os.path.join(kernel.modules, file) for file in order]


def available(kernel: Kernel, names: Sequence[str]) -> bool:
    """Return whether the kernel has all of these modules, or has them built in."""
    return {_key(name) for name in names} <= {*_dependencies(kernel), *_builtin(kernel)}


def plain_name(path: str) -> str:
    """Return the file name of a decompressed module, with `_` instead of `-` as in the module's name."""
    return _key(path) + ".ko"


def content(path: str) -> bytes:
    """Return a file's content; a compressed module is decompressed, so that the guest does not have to."""
    if path.endswith(".ko.xz"):
        import lzma

        with open(filetree.open_file(path), "rb") as packed, lzma.open(packed) as file:
            return file.read()
    if path.endswith(".ko.gz"):
        import gzip

        with open(filetree.open_file(path), "rb") as packed, gzip.open(packed) as file:
            return file.read()
    if path.endswith(".ko.zst"):
        return _from_zstd(path)
    with open(filetree.open_file(path), "rb") as file:
        return file.read()


def _from_zstd(path: str) -> bytes:
    from tempfile import TemporaryDirectory

    os.close(filetree.open_file(path))
    with TemporaryDirectory(prefix="vmctl-module-") as work:
        plain = os.path.join(work, "plain.ko")
        run(["zstd", "-q", "-d", path, "-o", plain])
        with open(plain, "rb") as file:
            return file.read()


def _dependencies(kernel: Kernel) -> dict[str, list[str]]:
    """Return module -> its file and the files of its dependencies, relative to the kernel's folder."""
    lines = _lines(kernel, "modules.dep")
    return {_key(own): [own, *needed.split()] for own, _, needed in (line.partition(":") for line in lines)}


def _builtin(kernel: Kernel) -> set[str]:
    return {_key(line) for line in _lines(kernel, "modules.builtin")}


def _lines(kernel: Kernel, name: str) -> list[str]:
    path = os.path.join(kernel.modules, name)
    try:
        with open(filetree.open_file(path), encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError as error:
        raise VmctlError(f"{path} cannot be read: {error.strerror}", hint="depmod(8) writes it") from None


def _key(file: str) -> str:
    """Return a module's name: without folder and suffix, and with `_` instead of `-`, as in the kernel."""
    return os.path.basename(file).partition(".ko")[0].replace("-", "_")
