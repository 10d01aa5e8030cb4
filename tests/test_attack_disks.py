"""File systems that hostile code has written, and that the host mounts to read them: disks of guests, and of images."""

import os
import pathlib
import subprocess

import pytest
from support.attack_table import callers, modes
from support.attacks import Cell
from support.commands import VMCTL

from vmctl.linux.loops import detached, loop_device

pytestmark = [pytest.mark.timeout(900), pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")]


@pytest.mark.attack(
    "a guest puts a link to a folder of the host in the place of its writable layer, before `diff` and `commit`"
)
@modes("vm")
@callers("root")
def test_writable_layer_that_is_a_link(caller, mode, canary):
    guest = Cell(caller, mode)
    try:
        target = os.path.dirname(canary.path)
        moved = f"mv /m/upper /m/moved && ln -s {target} /m/upper && sync && umount /m && echo done"
        assert guest.shell(f"mkdir /m; mount -t ext4 /dev/vdc /m && {moved}").out == "done\n"
        seen = [caller.vmctl("diff", guest.name), caller.vmctl("commit", guest.name, "stolen")]
        assert os.path.basename(canary.path) not in str(seen)
        assert [answer.code for answer in seen] == [125, 125]
        canary.check(*seen)
    finally:
        guest.end()


def ext4(folder, tree, *options):
    path = os.path.join(folder, "disk.img")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *options, "-d", tree, path, "16M"], check=True, capture_output=True)
    return path


@pytest.mark.attack("a disk to be imported has a link to a folder of the host in the place of its root folder")
def test_root_of_a_disk_that_is_a_link(tmp_path, own_root):
    for name in ("host/bin/sh", "host/etc/os-release", "disk/x"):
        os.makedirs(tmp_path / os.path.dirname(name), exist_ok=True)
        (tmp_path / name).write_text("a secret of the host")
    for place in ("root", "@", "@rootfs"):
        os.symlink(tmp_path / "host", tmp_path / "disk" / place)
    done = subprocess.run(
        [VMCTL, "image", "import", "--as-layer", "--name", "stolen", ext4(str(tmp_path), str(tmp_path / "disk"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125
    assert "has no root file system" in done.stderr


@pytest.mark.attack("a disk asks the kernel that reads it to stop the host at the first error in it (errors=panic)")
def test_disk_that_stops_the_host(tmp_path):
    (tmp_path / "tree").mkdir()
    path = ext4(str(tmp_path), str(tmp_path / "tree"))
    subprocess.run(["tune2fs", "-e", "panic", path], check=True, capture_output=True)
    with loop_device(path, writable=True) as device, detached(device, "ext4"):
        options = pathlib.Path("/proc/fs/ext4", os.path.basename(device), "options").read_text().split()
    assert [line for line in options if line.startswith("errors=")] == ["errors=continue"]
