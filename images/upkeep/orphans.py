"""What killed commands have left of images: mounts of layers, stages of the store, half-written files."""

from __future__ import annotations

import os
from functools import partial

from images.layer import mounts
from images.store import staging, store
from vmctl.linux import filetree, usernamespace
from vmctl.needs import Orphan


def find() -> list[Orphan]:
    """Return the orphans. Nothing is changed."""
    return [
        *(Orphan("layer mount", path, partial(mounts.remove_unused, path)) for path in _layers()),
        *(Orphan("stage", path, staging.remove_abandoned) for path in staging.abandoned()),
        *(Orphan("half-written file", path, partial(_unlink, path)) for path in _files()),
    ]


def _layers() -> list[str]:
    return mounts.unused() if usernamespace.is_host_root() else []


def _files() -> list[str]:
    folders = [store.path(), *(store.path(name) for name in ("layers", "disks", os.path.join("blobs", "sha256")))]
    present = [folder for folder in folders if os.path.isdir(folder)]
    return [
        os.path.join(folder, name) for folder in present for name in os.listdir(folder) if filetree.is_abandoned(name)
    ]


def _unlink(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
