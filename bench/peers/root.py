"""The root file system that all contenders share: the image's layers, which a running instance keeps mounted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import NamedTuple

from vmctl import backends, engine, paths
from vmctl.instances.instance import Instance
from vmctl.linux import syscalls
from vmctl.spec.workload import Workload


class Root(NamedTuple):
    """The paths of the root file system, and the mounts of a vmctl container."""

    folder: str  # for scratch files
    path: str  # the layers with a writable folder on top, mounted
    lower: str  # overlayfs's lowerdir
    steps: tuple[str, ...]  # of a vmctl container after pivot_root, as `up --explain` prints them
    instance: Instance  # the instance that runs all the time


@contextmanager
def shared_root(work: Workload) -> Iterator[Root]:
    """Start an instance that keeps the image's layers mounted and in the page cache, and put an overlay on them."""
    asleep = work._replace(name=f"peers-{os.urandom(3).hex()}", command=("sleep", "1000000"))
    explained = list(backends.load("container").explain(asleep))
    root = next(step.raw for step in explained if step.what == "root")
    files = {step.what: step.raw for step in explained if step.what.startswith("layer ")}
    lower = ":".join(
        _mounted(files[f"layer {number}"]) for number in re.findall(r"lowerdir=([\d:]+)", root)[0].split(":")
    )
    steps = tuple(step.short for step in explained if step.what == "mount")
    with TemporaryDirectory(prefix="vmctl-peers-") as folder:
        inst = engine.up(asleep, "container")
        try:
            with _overlay(folder, lower) as path:
                yield Root(folder, path, lower, steps, inst)
        finally:
            engine.rm(inst.name, force=True)


def _mounted(line: str) -> str:
    """Return the place where a layer is mounted for all instances; see images/layer/mounts.py."""
    return os.path.join(paths.run_root(), "layers", re.findall(r"([0-9a-f]{12})[0-9a-f]*\.erofs", line)[0])


def overlay_options(lower: str, folder: str) -> str:
    """Make an empty writable layer in a folder, and return overlayfs's options for it."""
    upper, work = os.path.join(folder, "upper"), os.path.join(folder, "work")
    os.makedirs(upper)
    os.makedirs(work)
    return f"lowerdir={lower},upperdir={upper},workdir={work}"


@contextmanager
def _overlay(folder: str, lower: str) -> Iterator[str]:
    path = os.path.join(folder, "rootfs")
    options = overlay_options(lower, folder)
    os.mkdir(path)
    syscalls.mount("overlay", path, "overlay", 0, options)
    try:
        yield path
    finally:
        syscalls.umount2(path, syscalls.MNT_DETACH)
