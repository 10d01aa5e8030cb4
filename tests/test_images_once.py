"""One image, both modes, one copy: what running it costs on disk, and that both see the same bytes."""

import os

import pytest
from support.commands import ok
from support.images_made import add
from support.trees import read

from images.store import store
from vmctl import paths
from vmctl.linux import filetree

# of every file: type and mode, owner, size, time; of files also the digest. What the modes put there is left out.
LISTING = (
    "cd /; find . -xdev ! -path './dev*' ! -path './proc*' ! -path './sys*' ! -path './run*' ! -path './etc/hosts'"
    " ! -path './etc/hostname' ! -path './etc/resolv.conf' -exec stat -c '%n %f %u:%g %t:%T' {} + | sort;"
    " find . -xdev -type f ! -path './run*' ! -path './proc*' ! -path './sys*' ! -path './dev*' ! -path './etc/hosts'"
    " ! -path './etc/hostname' ! -path './etc/resolv.conf' -exec sha256sum {} + | sort"
)


@pytest.fixture(scope="module")
def image(guest_root, tmp_path_factory):
    """`tiny` with another layer of 20 MiB, alone in a store."""
    tiny = store.find("tiny")
    kept = {name: os.path.realpath(store.path(name)) for name in ("kernels", "packages")}
    real = [layer._replace(path=os.path.realpath(layer.path)) for layer in tiny.layers]
    os.unlink(paths.images_root())
    os.makedirs(paths.images_root())
    for name, folder in kept.items():
        os.symlink(folder, store.path(name))
    tree = tmp_path_factory.mktemp("tree")
    (tree / "data").mkdir()
    (tree / "data/large").write_bytes(os.urandom(20 << 20))
    (tree / "data/owned").touch()
    os.chown(tree / "data/owned", 70_000, 4_000_000_000)
    (tree / "data/set-uid").write_bytes(b"x")
    (tree / "data/set-uid").chmod(0o4755)
    return add("large", tiny._replace(layers=real), tree)


def test_both_modes_see_the_same_files_and_the_store_has_them_once(image):
    ids = {"container": ("--userns", "host"), "vm": ()}  # a user namespace has no ids above 65535
    words = ("--network", "none", "large", "--", "sh", "-c", LISTING)
    seen = {mode: ok("run", "--mode", mode, *ids[mode], *words) for mode in MODES}
    assert seen["container"] == seen["vm"]
    assert len(seen["vm"].splitlines()) > 290
    assert "./data/owned 81a4 70000:4000000000" in seen["vm"]
    layers = sum(os.stat(layer.path).st_blocks * 512 for layer in image.layers)
    assert layers > 20 << 20
    assert filetree.allocated_bytes(paths.images_root()) <= 1.05 * layers
    # a large layer ends with a hole, so that guests can read it in place (vmm/pmem.py)
    assert sum(len(read(layer.path)) for layer in image.layers) <= 1.05 * layers + (2 << 20)


MODES = ("container", "vm")


@pytest.mark.parametrize(("mode", "limit_bytes"), [("container", 64 << 10), ("vm", 1 << 20)])
def test_an_idle_instance_takes_little(image, tmp_path, mode, limit_bytes):
    work = tmp_path / "idle.yaml"
    work.write_text("image: large\ncommand: [sleep, '1000']\nnetwork: none\n")
    ok("up", str(work), "--mode", mode)
    try:
        assert filetree.allocated_bytes(os.path.join(paths.instances_root(), "idle")) <= limit_bytes
    finally:
        ok("down", "idle")
