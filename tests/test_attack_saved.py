"""A guest that began with the memory of a snapshot, against the memory that all its clones share."""

import hashlib
import os

import pytest
from support.commands import ok, vmctl

from vmctl.snapshots import record
from vmm.saved import saving

pytestmark = pytest.mark.timeout(900)
GUEST = "image: tiny\ncommand: [sleep, '100000']\nnetwork: none\nresources: {memory: 128M}\nvm: {warm: auto}\n"
# a balloon would give pages of the shared file back, for all clones
WRITES = """
head -c 40000000 /dev/zero | tr '\\0' x >/dev/shm/x; rm /dev/shm/x
echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory
balloon=/sys/bus/virtio/drivers/virtio_balloon
for device in /sys/bus/virtio/devices/*; do echo ${device##*/} >$balloon/bind; done 2>/dev/null
sync
find $balloon -name 'virtio[0-9]*'
"""


@pytest.fixture(scope="module")
def memory(guest_root, tmp_path_factory):
    """The path of the memory of a snapshot, of which a clone runs."""
    spec = tmp_path_factory.mktemp("saved") / "origin.yaml"
    spec.write_text(GUEST)
    ok("up", "--quiet", "--mode", "vm", str(spec), timeout_s=600)
    ok("snapshot", "origin", "gold")
    ok("rm", "-f", "origin")
    ok("clone", "gold", "--name", "hostile")
    yield os.path.join(record.folder("gold"), saving.RAM)
    vmctl("rm", "-f", "hostile")
    vmctl("snapshot", "rm", "gold")


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.attack(
    "a clone writes to its memory, gives pages back and looks for a balloon, to change the memory that others map",
    mode="vm",
    who="root",
)
def test_a_hostile_clone_changes_nothing_of_the_snapshot(memory):
    before = digest(memory)
    assert ok("exec", "hostile", "--", "sh", "-c", WRITES) == ""  # the driver has no device
    assert digest(memory) == before
