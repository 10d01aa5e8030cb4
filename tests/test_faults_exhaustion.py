"""A host without free descriptors, processes, memory or space: each command ends with a reason and leaves nothing."""

import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest
from support import host_state
from support.commands import VMCTL, Result, ok, vmctl
from support.host_state import PREFIX

from vmctl import backends, paths
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.linux import cgroups, mountinfo, syscalls

QUICK = [mode for mode in sorted(backends.modes()) if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)


@pytest.fixture(autouse=True)
def root(own_root):
    yield own_root
    for name in instance.names():
        vmctl("rm", "-f", name)


def sleeper(root, name=PREFIX):
    path = root / f"{name}.yaml"
    path.write_text(f"name: {name}\nimage: tiny\ncommand: [sleep, '1000']\n")
    return str(path)


def nothing_is_left():
    return not instance.names() and not host_state.mounts() and not host_state._cgroups()


# The limit is on the numbers of descriptors, so those that are taken must be the lowest.
WITH_FILES = """
import os, sys
for number in range(3, 3 + int(sys.argv[1])):
    os.dup2(0, number)
os.execv(sys.argv[2], sys.argv[2:])
"""


def limited(*words, files=None, inherited=0, group=None):
    """Run the command with so few files, with so many of them open already, in a group."""

    def prepare():
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        if group:
            with open(os.path.join(group, "cgroup.procs"), "w") as file:
                file.write("0")

    argv = [sys.executable, "-c", WITH_FILES, str(inherited), VMCTL, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, preexec_fn=prepare)
    assert "Traceback" not in done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


@contextmanager
def limited_group(controller, file, limit):
    """Yield a cgroup with one limit."""
    mount = cgroups.hierarchy().mounts[controller]
    folder = os.path.join(mount, f"test-{PREFIX}")
    os.mkdir(folder)
    try:
        with open(os.path.join(folder, file), "w") as limits:
            limits.write(str(limit))
        yield folder
    finally:
        deadline = time.monotonic() + 20
        while True:
            try:
                os.rmdir(folder)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


# Open files


@EACH_QUICK_MODE
@pytest.mark.parametrize("files", [16, 32])
def test_too_few_files_are_refused_before_anything_is_made(root, mode, files):
    for words in (("up", "--mode", mode, sleeper(root)), ("run", "--mode", mode, "tiny", "--", "true")):
        result = limited(*words, files=files)
        assert result.code == 125, result
        assert f"only {files} files may be open at a time, 64 are needed\nhint: ulimit -n 64" in result.err
        assert nothing_is_left()


@EACH_QUICK_MODE
@pytest.mark.parametrize("verb", ["stop -t 0", "kill", "down", "rm -f"])
def test_sixteen_files_are_enough_to_end_and_to_show(root, mode, verb):
    ok("up", "--mode", mode, sleeper(root))
    for words in (["ps"], ["inspect", PREFIX], ["logs", PREFIX], ["df"]):
        assert limited(*words, files=16).code == 0
    assert limited(*verb.split(), PREFIX, files=16).code == 0
    assert limited("prune", "-f", files=16).code == 0
    assert nothing_is_left()


@EACH_QUICK_MODE
@pytest.mark.parametrize("verb", ["up", "run"])
def test_a_start_that_runs_out_of_files_halfway_leaves_nothing(root, mode, verb):
    words = {"up": ("up", "--mode", mode, sleeper(root)), "run": ("run", "--mode", mode, "tiny", "--", "true")}[verb]
    codes = set()
    for left in range(7, 25, 2):
        result = limited(*words, files=64, inherited=64 - 3 - left)
        codes.add(result.code)
        if result.code:
            assert (result.code, result.err[:7]) == (125, "vmctl: "), (left, result)
            assert nothing_is_left(), (left, result)
        else:
            vmctl("rm", "-f", PREFIX)
    assert codes == {0, 125}


# Processes and memory


@EACH_QUICK_MODE
@pytest.mark.parametrize("limit", [1, 2])
def test_no_more_processes(root, mode, limit):
    with limited_group("pids", "pids.max", limit) as group:
        result = limited("up", "--mode", mode, sleeper(root), group=group)
        assert result.code == 125, result
        unavailable = "Resource temporarily unavailable\nhint: no further process is allowed"
        assert unavailable in result.err or "can't start new thread" in result.err, result
        assert nothing_is_left()
        ok("up", "--mode", mode, sleeper(root))
        assert limited("down", "-t", "1", PREFIX, group=group).code == 0
        assert nothing_is_left()


def test_no_memory_for_the_command(root):
    """The kernel kills it anywhere; what it has made can be removed, and is shown as failed until then."""
    file = "memory.max" if cgroups.hierarchy().version == 2 else "memory.limit_in_bytes"
    codes = set()
    for mib in range(6, 18, 2):
        with limited_group("memory", file, mib << 20) as group:
            codes.add(limited("up", sleeper(root), group=group).code)
            assert not set(vmctl("ps", "-aq").out.split()) - {PREFIX}
            ok("down", "-t", "0", PREFIX)
            assert nothing_is_left(), mib
    assert -9 in codes


# Space for the run folder


def test_no_space_in_the_run_folder(root):
    os.makedirs(paths.run_root())
    syscalls.mount("tmpfs", paths.run_root(), "tmpfs", 0, "nr_inodes=8")
    try:
        with suppress(OSError):
            for number in range(100):
                open(os.path.join(paths.run_root(), f"fill{number}"), "w").close()
        result = limited("up", sleeper(root))
        assert result.code == 125, result
        assert "No space left on device" in result.err
        assert instance.names() == []
    finally:
        mountinfo.unmount_all(paths.run_root())


# Loop devices and control groups


WITHOUT_LOOPS = """
mount -t tmpfs x "$1" && cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$1" && mkdir "$1/pts"
[ "$2" = none ] || cp -a /dev/loop-control "$1"
mount --move "$1" /dev && shift 2 && exec "$@"
"""


@pytest.mark.parametrize("kept", ["none", "control"])
def test_no_loop_device(root, tmp_path, kept):
    words = ["unshare", "--mount", "sh", "-c", WITHOUT_LOOPS, "sh", str(tmp_path), kept, VMCTL]
    run = ["run", "--network", "none", "--disk", "16M", "tiny", "--", "true"]
    done = subprocess.run([*words, *run], capture_output=True, text=True, timeout=120)
    assert done.returncode == 125, done
    assert "no loop device is available: No such file or directory\nhint: `losetup -a`" in done.stderr
    assert nothing_is_left()


def test_no_further_control_group(tmp_path):
    """cgroup.max.descendants exists in version 2 only, also in a hierarchy without controllers."""
    syscalls.mount("cgroup2", str(tmp_path), "cgroup2")
    group = tmp_path / f"test-{PREFIX}"
    group.mkdir()
    try:
        (group / "cgroup.max.descendants").write_text("1")
        cgroups._make(str(group / "vmctl"), 2, [])
        with pytest.raises(VmctlError, match="no further control group can be made") as caught:
            cgroups._make(str(group / "vmctl/web"), 2, [])
        assert "cgroup.max.descendants" in caught.value.hint
    finally:
        with suppress(FileNotFoundError):
            (group / "vmctl").rmdir()
        group.rmdir()
        mountinfo.unmount_all(str(tmp_path))
