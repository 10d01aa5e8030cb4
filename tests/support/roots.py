"""A state root apart from the one of this host, for instances that must not meet others."""

import os
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from vmctl import paths


@contextmanager
def separate_root(*kept):
    """Make a new VMCTL_ROOT the one of this process, and yield its path; the one before is back afterwards.

    `kept`: images, cache: what it shares with the one before. The path is short, because it contains sockets (unix(7):
    107 bytes).
    """
    before = os.environ.get("VMCTL_ROOT")
    folders = {name: os.path.realpath(_folder(name)) for name in kept}
    with TemporaryDirectory(prefix="vmctl-") as root:
        os.environ["VMCTL_ROOT"] = root
        try:
            os.makedirs(paths.state_root(), mode=0o700)
            for name, folder in folders.items():
                os.makedirs(folder, exist_ok=True)
                os.symlink(folder, _folder(name))
            yield root
        finally:
            del os.environ["VMCTL_ROOT"]
            if before is not None:
                os.environ["VMCTL_ROOT"] = before


def _folder(name):
    return {"images": paths.images_root, "cache": paths.cache_root}[name]()
