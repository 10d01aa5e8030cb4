"""Templates on disk: the memory of guests whose kernel has just booted, see vmm/saved/templates.py."""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import paths
from vmctl.linux import filetree


def root() -> str:
    """Return the folder of all templates."""
    return os.path.join(paths.cache_root(), "templates")


def folders() -> list[str]:
    """Return the folders of all templates; their names are digests of what a guest must have to begin with one."""
    with suppress(FileNotFoundError):
        return sorted(entry.path for entry in os.scandir(root()) if not entry.name.startswith("."))
    return []


def remove(folder: str) -> int:
    """Remove a template and return how many bytes that frees; guests that run with its memory have the file open."""
    size = filetree.allocated_bytes(folder) if os.path.isdir(folder) else 0
    gone = os.path.join(root(), f".{os.path.basename(folder)}.{os.urandom(4).hex()}")
    with suppress(OSError):
        os.rename(folder, gone)
        filetree.remove_tree(gone)
        return size
    return 0
