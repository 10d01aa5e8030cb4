"""Builds initrds: busybox, the kernel modules that a guest needs, and the files of the caller.

An initrd is a newc cpio archive (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). It is cached until
an input changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from images.kernels import modules
from images.kernels.kernel import Kernel
from images.packages import busybox
from vmctl import paths
from vmctl.linux.filetree import is_being_written, replacing, write_atomic

# The init inserts the modules listed here, one path per line, in this order.
MODULE_LIST = "lib/modules/vmctl.order"

_INPUTS = ".inputs"  # suffix of the file that lists the inputs of an archive
_LINKS = {"bin/sh": "busybox"}
_FOLDERS = ("dev", "proc", "root", "run", "sys", "tmp")
_CONSOLE = os.makedev(5, 1)


class InitrdFile(NamedTuple):
    """A file of the host that goes into the initrd."""

    source: str
    path: str  # in the initrd
    mode: int


def build(
    kernel: Kernel,
    files: Sequence[tuple[str, str, int]],
    module_names: Sequence[str],
    optional: Collection[str] = (),
) -> str:
    """Return the path of an initrd with busybox at /bin/busybox, the files (see InitrdFile) and the modules.

    Includes the dependencies of the modules. Raises NotFoundError if the kernel lacks a module that is not optional.
    """
    needed = modules.load_order(kernel, module_names, optional)
    inputs = [
        InitrdFile(busybox.path(), "bin/busybox", 0o755),
        *(InitrdFile(*file) for file in files),
        *(InitrdFile(source, f"lib/modules/{modules.plain_name(source)}", 0o644) for source in needed),
    ]
    path = os.path.join(_folder(), f"{kernel.release}-{_fingerprint(inputs)}.cpio")
    if not os.path.exists(path):
        _write(path, inputs)
    return path


def stale() -> list[str]:
    """Return the files of archives that no start uses any more, because an input has changed or was removed."""
    try:
        names = sorted(os.listdir(_folder()))
    except FileNotFoundError:
        return []
    current = {name for name in names if name.endswith(".cpio") and _is_current(os.path.join(_folder(), name))}
    kept = current | {name + _INPUTS for name in current}
    return [os.path.join(_folder(), name) for name in names if name not in kept and not is_being_written(name)]


def _folder() -> str:
    return os.path.join(paths.cache_root(), "initrd")


def _is_current(path: str) -> bool:
    try:
        with open(path + _INPUTS, encoding="utf-8") as file:
            inputs = [InitrdFile(**item) for item in json.load(file)["files"]]
        return path.endswith(f"-{_fingerprint(inputs)}.cpio")
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _fingerprint(inputs: Sequence[InitrdFile]) -> str:
    """Return a digest that changes with every input; a file counts as changed if its inode, size or time differs."""
    state = hashlib.sha256()
    for item in inputs:
        state.update(repr(item).encode())
    for path in (__file__, *(item.source for item in inputs)):
        status = os.stat(path)
        state.update(repr((status.st_ino, status.st_size, status.st_mtime_ns)).encode())
    return state.hexdigest()[:16]


def _write(path: str, inputs: Sequence[InitrdFile]) -> None:
    """Write the archive completely or not at all.

    It is not compressed: gzip, lz4 and zstd did not change the start time of guests, and need a decompressor.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with replacing(path, durable=True) as temporary:
        with open(temporary, "wb") as file:
            for number, entry in enumerate(_entries(inputs), start=1):
                file.write(_newc(number, *entry))
            file.write(_newc(0, "TRAILER!!!", 0))
        write_atomic(path + _INPUTS, json.dumps({"files": [item._asdict() for item in inputs]}))


def _entries(inputs: Sequence[InitrdFile]) -> Iterator[tuple[str, int, bytes, int]]:
    """Yield name, mode, content and device number of every entry, folders first."""
    contents = [(item.path.strip("/"), item.mode, modules.content(item.source)) for item in inputs]
    order = "".join(f"/{name}\n" for name, _, _ in contents if name.startswith("lib/modules/"))
    for folder in sorted({*_FOLDERS, *_parents([MODULE_LIST, *_LINKS, *(name for name, _, _ in contents)])}):
        yield folder, stat.S_IFDIR | 0o755, b"", 0
    # without /dev/console, init would start with closed standard streams
    yield "dev/console", stat.S_IFCHR | 0o600, b"", _CONSOLE
    yield MODULE_LIST, stat.S_IFREG | 0o644, order.encode(), 0
    for name, target in _LINKS.items():
        yield name, stat.S_IFLNK | 0o777, target.encode(), 0
    for name, mode, data in contents:
        yield name, stat.S_IFREG | mode, data, 0


def _parents(names: Sequence[str]) -> set[str]:
    """Return all parent folders of the names."""
    parts = [name.split("/")[:-1] for name in names]
    return {"/".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1)}


def _newc(number: int, name: str, mode: int, data: bytes = b"", device: int = 0) -> bytes:
    """Return an entry: a header of 13 eight-digit fields and the name, then the data, both padded to four bytes."""
    encoded = name.encode() + b"\0"
    links, uid, gid, mtime, major, minor, checksum = 1, 0, 0, 0, 0, 0, 0
    fields = [number, mode, uid, gid, links, mtime, len(data), major, minor]
    fields += [os.major(device), os.minor(device), len(encoded), checksum]
    head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + encoded
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
