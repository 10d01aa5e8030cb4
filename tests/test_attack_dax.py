"""A guest that reads a large layer in place (virtio-pmem, DAX): it gets the content, and cannot change the file."""

import hashlib
import os

import pytest
from support import images_made
from support.attack_table import callers, modes
from support.commands import inspect, ok, vmctl

from images.store import store

pytestmark = pytest.mark.timeout(900)
MIB = 1 << 20
NAMES = ("large", "small")
WRITES = """
dd if=/dev/zero of=/dev/pmem0 bs=1M count=4 conv=fsync 2>/dev/null
blockdev --setrw /dev/pmem0
mkdir /m && mount -t erofs -o rw,remount /dev/pmem0 /m
start=$(printf %d 0x$(grep -i persistent /proc/iomem | head -n 1 | sed 's/^ *//; s/-.*//'))
dd if=/dev/zero of=/dev/mem bs=1M count=1 seek=$((start >> 20)) conv=notrunc 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
sync
"""


@pytest.fixture(scope="module")
def layer(own_store, tmp_path_factory):
    """A running guest of an image with a large layer, and the path of this layer."""
    tree = tmp_path_factory.mktemp("large")
    for name, size_bytes in zip(NAMES, (20 * MIB + 777, 777), strict=True):
        (tree / name).write_bytes(os.urandom(size_bytes))
    image = images_made.add("large", store.find("tiny"), tree)
    spec = tree / "guest.yaml"
    spec.write_text("name: reader\nimage: large\ncommand: [sleep, '100000']\nnetwork: none\n")
    ok("up", "--quiet", "--mode", "vm", str(spec), timeout_s=600)
    yield image.layers[1].path
    ok("rm", "-f", "reader")


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shell(script):
    return vmctl("exec", "reader", "--", "sh", "-c", script, timeout_s=300).out


@pytest.mark.attack(
    "a guest writes to a layer that it shares with others in memory: by its device, by a mount, by /dev/mem"
)
@modes("vm")
@callers("root")
def test_layer_in_memory(layer, mode, who):
    machine = inspect("reader")["machine"]
    assert machine["layers_by_dax"] == [1]
    before, inside = digest(layer), shell("cd /; sha256sum large small")
    for name in NAMES:
        assert f"  {name}\n" in inside
    cached = "sed -n 's/^Cached: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"
    first, second = shell(f"echo 3 >/proc/sys/vm/drop_caches; {cached}; cat /large >/dev/null; {cached}").split()
    assert (int(second) - int(first)) * 1024 < 4 * MIB, "the guest has copied the file into its page cache"
    shell(WRITES)
    assert digest(layer) == before
    assert shell("cd /; sha256sum large small") == inside


def test_a_guest_with_such_a_layer_is_not_suspended():
    refused = vmctl("suspend", "reader")
    assert refused.code == 125
    assert "reader cannot be suspended: QEMU cannot save the devices of large layers" in refused.err
    assert inspect("reader")["status"] == "running"
