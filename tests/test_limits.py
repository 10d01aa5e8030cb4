"""Limits: default ones, those asked for, and those that cannot be enforced."""

import json
import os
import re

import pytest
from support.commands import ok, refused, vmctl, wait_for
from test_refusals import where

from vmctl import limits
from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance, State
from vmctl.linux import filetree, mountinfo
from vmctl.linux.cgroups import Cgroup
from vmctl.programs import run
from vmctl.spec.workload import Bytes, Resources, Workload

EACH_MODE = pytest.mark.parametrize("mode", ["container", "host"])
GIB = 1 << 30


@pytest.fixture
def up(guest_root, tmp_path):
    """Start an instance and return its limits."""

    def up(mode, text=""):
        (tmp_path / "limits.yaml").write_text(f"image: tiny\ncommand: [sleep, '1000']\n{text}\n")
        ok("up", "--quiet", "--mode", mode, str(tmp_path / "limits.yaml"))
        return json.loads(ok("inspect", "limits"))[0]["limits"]

    yield up
    vmctl("rm", "-f", "limits")


NONE = {"cpus": None, "memory_bytes": None, "pids": None, "disk_bytes": None}


@EACH_MODE
def test_default_limits(up, mode):
    found = up(mode)
    assert found["asked"] == {**NONE, "log_bytes": 64 << 20}
    assert found["granted"] == {**NONE, "pids": 4096, "log_bytes": 64 << 20}


@EACH_MODE
def test_limits_that_are_asked_for(up, mode):
    found = up(mode, "resources: {cpus: 0.5, memory: 64M, pids: 100}\nlogs: {size: 1M}")
    wanted = {"cpus": 0.5, "memory_bytes": 64 << 20, "pids": 100, "disk_bytes": None, "log_bytes": 1 << 20}
    assert found == {"asked": wanted, "granted": wanted}


def test_limits_of_a_guest(up):
    found = up("vm", "resources: {cpus: 1.5, memory: 200M, disk: 200M}")
    assert found["granted"] == {
        "cpus": 1.5,
        "memory_bytes": 200 << 20,
        "pids": 4096,
        "disk_bytes": 200 << 20,
        "log_bytes": None,
    }


@pytest.mark.parametrize("mode", ["container", "host", "vm"])
def test_a_child_that_runs_out_of_memory_is_shown(guest_root, tmp_path, mode):
    (tmp_path / "oom.yaml").write_text(
        "image: tiny\ncommand: [sh, -c, 'tail /dev/zero; echo $?; sleep 1000']\n"
        "resources: {memory: 128M}\nready: {log: '137', timeout: 300s}\n"
    )
    ok("up", "--quiet", "--mode", mode, str(tmp_path / "oom.yaml"))
    try:
        document = json.loads(ok("inspect", "oom"))[0]
        assert (document["oom_kills"], document["oom_reporter"]) == (1, "guest" if mode == "vm" else "host")
        assert "running (oom 1)" in ok("ps")
        ok("kill", "oom")
        row = next(row for row in json.loads(ok("ps", "-a", "--format", "json")) if row["name"] == "oom")
        assert row["oom_kills"] == 1
    finally:
        ok("rm", "-f", "oom")


@pytest.mark.parametrize(
    ("key", "controller"), [("pids: 10", "pids"), ("memory: 64M", "memory"), ("cpus: 1", "cpu")], ids=str
)
@pytest.mark.skipif(Cgroup("x").layout.version == 2, reason="in v2 all controllers have one mount point")
def test_a_limit_without_its_controller_is_refused(guest_root, tmp_path, key, controller):
    (tmp_path / "limits.yaml").write_text(f"image: tiny\ncommand: [sleep, '1000']\nresources: {{{key}}}\n")
    shown = {"pids": "10", "memory": "64M", "cpu": "1"}[controller]
    output = where(f"umount /sys/fs/cgroup/{controller}", "up", str(tmp_path / "limits.yaml"))
    assert f"the {controller} limit {shown} cannot be enforced" in str(output)


@pytest.mark.parametrize(
    ("granted", "message"),
    [
        ({"cpus": 1.5, "memory_bytes": GIB, "pids": 10, "disk_bytes": GIB}, None),
        ({"cpus": 1.495, "memory_bytes": GIB - 4095, "pids": 10, "disk_bytes": GIB + 511}, None),
        ({"cpus": 1.0, "memory_bytes": GIB, "pids": 10, "disk_bytes": GIB}, r"resources\.cpus 1.5, but 1 is in effect"),
        ({"cpus": 1.5, "memory_bytes": None, "pids": 10, "disk_bytes": GIB}, r"resources\.memory 1G, but no limit is"),
        ({"cpus": 1.5, "memory_bytes": GIB, "pids": 11, "disk_bytes": GIB}, r"resources\.pids 10, but 11 is"),
        ({"cpus": 1.5, "memory_bytes": GIB, "pids": 10}, r"resources\.disk 1G, but no limit is"),
    ],
)
def test_a_limit_that_is_not_in_effect_is_an_error(granted, message):
    work = Workload("w", "tiny", resources=Resources(1.5, Bytes(GIB), 10, Bytes(GIB)))
    inst = Instance("w", work, State(id="0" * 8, limits=granted))
    if message is None:
        limits.check(inst)
        return
    with pytest.raises(VmctlError, match=message):
        limits.check(inst)


@EACH_MODE
@pytest.mark.parametrize("userns", ["auto", "host"])
def test_the_writable_layer_has_the_size_that_is_asked_for(up, mode, userns):
    if (mode, userns) == ("host", "auto"):
        userns = "host"
    found = up(mode, f"resources: {{disk: 20M}}\ncontainer: {{userns: {userns}}}")
    assert found["granted"]["disk_bytes"] == 20 << 20
    folder = json.loads(ok("inspect", "limits"))[0]["directory"]
    full = vmctl("exec", "limits", "--", "dd", "if=/dev/zero", "of=/fill", "bs=1M", "count=100")
    assert "No space left on device" in full.err
    assert 15 << 20 < filetree.allocated_bytes(folder) < 21 << 20
    ok("exec", "limits", "--", "rm", "/fill")
    ok("exec", "limits", "--", "sh", "-c", "echo kept >/kept; sync")
    wait_for(lambda: filetree.allocated_bytes(folder) < 10 << 20, timeout_s=60)  # given back to the host
    assert ok("diff", "limits") == "A /kept\n"
    ok("commit", "limits", "kept:disk")
    ok("rm", "-f", "limits")
    assert ok("run", "kept:disk", "--", "cat", "/kept") == "kept\n"
    ok("image", "rm", "kept:disk")
    assert mountinfo.below(os.environ["VMCTL_ROOT"] + "/lib") == []
    assert "limits/disk.img" not in ok_losetup()


def ok_losetup():
    return run(["losetup", "--all", "--list", "--noheadings"])[1]


def test_a_size_of_the_writable_layer_as_a_flag(guest_root):
    assert "20.0M" not in ok("run", "tiny", "--", "df", "-h", "/")
    size = ok("run", "--disk", "64M", "tiny", "--", "df", "-k", "/").splitlines()[-1].split()[1]
    assert 50 << 10 < int(size) <= 64 << 10
    assert "--disk must be at least 4M" in refused("run", "--disk", "2M", "tiny", "--", "true")
    assert "--disk: expected a size" in refused("run", "--disk", "x", "tiny", "--", "true")


@pytest.mark.parametrize("mode", ["container", "host", "vm"])
def test_a_size_that_no_writable_layer_can_have(guest_root, mode):
    for size, text in (
        ("3M", "--disk must be at least 4M"),
        ("1024T", "--disk: the file system of .* cannot have a file of 1024.0 TiB: File too large"),
        ("4194304T", "--disk: the file system of "),
    ):
        said = refused("run", "--mode", mode, "--disk", size, "tiny", "--", "true")
        assert re.search(text, said), said


def test_flags(guest_root):
    for flag, value, key in (("--pids", "0", "pids"), ("--cpus", "0", "cpus"), ("--cpus", "nan", "cpus")):
        assert f"--{key}: expected a" in refused("run", flag, value, "tiny", "--", "true")


def test_what_can_be_used_at_most_and_its_source():
    work = Workload("w", "tiny", resources=Resources(cpus=0.5))
    inst = Instance("w", work, State(id="0" * 8, limits={"cpus": 0.5, "memory_bytes": None, "pids": 4096}))
    found = limits.effective(inst)
    assert found["cpus"] == {"value": 0.5, "source": "workload"}
    assert found["memory_bytes"] == {
        "value": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "source": "host",
    }
    assert found["pids"] == {"value": 4096, "source": "default"}
    assert found["disk_bytes"] == {"value": None, "source": "host"}
