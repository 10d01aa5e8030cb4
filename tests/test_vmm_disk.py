"""The writable disk: sparse, a clean ext4, made once."""

import os
import re

import pytest

from vmctl.errors import SpecError
from vmctl.linux.filetree import allocated_bytes
from vmctl.programs import CommandError, run
from vmm import disk

MIB = 1024**2


def test_disk_is_a_clean_ext4_that_takes_less_than_a_mib(tmp_path):
    path = str(tmp_path / "disk.img")
    disk.make(path, 1024 * MIB)
    assert os.stat(path).st_size == 1024 * MIB
    assert 0 < allocated_bytes(path) < MIB
    assert run(["e2fsck", "-f", "-n", path], check=False)[0] == 0
    # nothing is left for the guest's kernel to zero in the background, which would fill the file
    groups = re.findall(r"^Group \d+: .*", run(["dumpe2fs", path])[1], re.MULTILINE)
    assert groups
    assert all("ITABLE_ZEROED" in group for group in groups)


@pytest.mark.parametrize("size_bytes", [disk.LEAST_BYTES, 9 * MIB, disk.SMALL_BYTES, 20_000_001])
def test_small_and_odd_disks_are_made_too(tmp_path, size_bytes):
    path = str(tmp_path / "disk.img")
    disk.make(path, size_bytes)
    assert os.stat(path).st_size == size_bytes
    assert run(["e2fsck", "-f", "-n", path], check=False)[0] == 0


def test_a_size_that_qcow2_cannot_have_is_named_by_its_key(tmp_path):
    base = str(tmp_path / "base.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", base, "8M"])
    with pytest.raises(SpecError, match=r"the key resources\.disk: expected at most 2048\.0 TiB"):
        disk.check_size(base, disk.QCOW2_MOST_BYTES + 1)
    disk.make_overlay(str(tmp_path / "disk.img"), base, disk.QCOW2_MOST_BYTES)


def test_disk_is_kept(tmp_path):
    path = str(tmp_path / "disk.img")
    disk.make(path, 64 * MIB)
    inode = os.stat(path).st_ino
    disk.make(path, 128 * MIB)
    assert (os.stat(path).st_ino, os.stat(path).st_size) == (inode, 64 * MIB)


def test_disk_too_small_for_a_file_system(tmp_path):
    with pytest.raises(CommandError):
        disk.make(str(tmp_path / "disk.img"), 4096)
    assert not (tmp_path / "disk.img").exists()


def test_a_guest_does_not_choose_the_size_of_its_raw_disk(tmp_path):
    """It can write the header of a qcow2 disk to it: QEMU's limit for the size of files would be that of the header."""
    path = str(tmp_path / "disk.img")
    disk.make(path, 64 * MIB)
    with open(path, "r+b") as file:
        file.write(b"QFI\xfb" + bytes(20) + (1 << 62).to_bytes(8, "big"))
    assert disk.size_bytes(path, raw=True) == disk.file_bytes(path, raw=True) == 64 * MIB
