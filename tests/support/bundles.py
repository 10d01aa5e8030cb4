"""Bundles as others could have made them, and a machine that has nothing."""

import contextlib
import io
import json
import os
import tarfile
from tempfile import TemporaryDirectory

import pytest
from support.commands import ok


@contextlib.contextmanager
def another_machine():
    """Set VMCTL_ROOT to an empty folder and yield it. By a proxy that is not there, nothing can be fetched."""
    with TemporaryDirectory(prefix="vmctl-") as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMCTL_ROOT", root)
        for name in ("http_proxy", "https_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        yield root


def make(folder, *options):
    """Return the path of a bundle of the image tiny, busybox, and the kernel for guests unless `--kernel none`."""
    path = os.path.join(folder, "labs.tar")
    assert ok("bundle", "make", *options, "--image", "tiny", path).split("\n")[0] == "image tiny"
    return path


def rewritten(bundle, target, change):
    """Write a bundle whose members `change(members)` has changed: a dict of name -> content, in order."""
    with tarfile.open(bundle) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    change(members)
    with tarfile.open(target, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(target)


def with_index(bundle, target, change):
    """Write a bundle whose index `change(index)` has changed."""

    def changed(members):
        index = json.loads(members["bundle.json"])
        change(index)
        members["bundle.json"] = json.dumps(index).encode()

    return rewritten(bundle, target, changed)


def store_of(root):
    """Return all files of a store but its locks and folders for work in progress."""
    skip = ("stages", "downloads")
    return sorted(
        os.path.relpath(os.path.join(place, name), root)
        for place, _, names in os.walk(root)
        for name in names
        if not name.endswith("lock") and not set(place.split("/")) & set(skip)
    )
