"""The list of devices that a control group may open, by either version of control groups."""

import json
import os
import stat

import pytest
from support.commands import ok, refused, vmctl

from vmctl.linux import cgroups, devices

NODES = {"null": (1, 3), "zero": (1, 5), "urandom": (1, 9), "tty": (5, 0), "ptmx": (5, 2)}
OTHERS = {"memory": (1, 1), "kmsg": (1, 11), "console": (5, 1), "tun": (10, 200), "kvm": (10, 232), "misc": (10, 237)}


@pytest.fixture
def group():
    """The name of a control group that is removed at the end."""
    name = f"devices-test.{os.urandom(4).hex()}"
    yield name
    cgroups.Cgroup(name).remove()


@pytest.fixture
def nodes(tmp_path):
    """A function that makes a node of each device; returns {name: path}."""

    def make(found, kind=stat.S_IFCHR):
        paths = {name: str(tmp_path / name) for name in found}
        for name, path in paths.items():
            os.mknod(path, kind | 0o666, os.makedev(*found[name]))
        return paths

    return make


def opened(join, paths, flags=os.O_RDONLY):
    """Return the names of the devices that a process which joins a group can open, and whether it can make one."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            join()
            for name, path in paths.items():
                try:
                    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
                except PermissionError:
                    continue
                except OSError:  # the kernel has no driver for it, or it needs a terminal: it was not refused
                    pass
                os.write(write, f"{name} ".encode())
            made = next(iter(paths.values())) + "-made"
            os.mknod(made, stat.S_IFCHR | 0o600, os.makedev(1, 1))
            os.unlink(made)
            os.write(write, b"mknod")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        found = set(file.read().split())
    os.waitpid(pid, 0)
    return found


def test_on_this_host(group, nodes):
    paths = nodes({**NODES, **OTHERS})
    cgroup = cgroups.Cgroup(group)
    cgroup.create(cgroups.Limits())
    assert opened(cgroup.join, paths) == {*NODES, *OTHERS, "mknod"}
    assert devices.restrict(cgroup)
    assert opened(cgroup.join, paths) == {*NODES, "mknod"}


@pytest.fixture
def unified(group):
    """A group of the unified hierarchy, which a hybrid host has too."""
    folder = f"{cgroups.hierarchy().unified}/{group}"
    os.mkdir(folder)
    yield folder
    os.rmdir(folder)


@pytest.mark.skipif(not cgroups.hierarchy().unified, reason="cgroup2 is not mounted")
def test_by_a_program_of_the_unified_hierarchy(unified, nodes):
    paths = nodes({**NODES, **OTHERS})

    def join():
        _join(unified)

    assert devices._attach(unified, ())
    assert opened(join, paths) == {*NODES, "mknod"}
    blocks = nodes({"disk": (254, 0), "loop": (7, 0), "one": (1, 3)}, stat.S_IFBLK)
    assert opened(join, blocks) == {"mknod"}


def test_more_devices_by_either_version(group, nodes):
    """A group gets one device for reading only, and a block device; others of the same numbers stay refused."""
    more = (devices.Device(10, 200, access="r"), devices.Device(7, 0, "b"))
    paths = nodes({"tun": (10, 200), "misc": (10, 237), "memory": (1, 1), "null": (1, 3)})
    blocks = nodes({"loop": (7, 0), "another": (7, 1), "zero": (1, 3)}, stat.S_IFBLK)
    cgroup = cgroups.Cgroup(group)
    cgroup.create(cgroups.Limits())
    joins = [cgroup.join]
    assert devices.restrict(cgroup, more)
    if folder := cgroups.hierarchy().unified:
        path = f"{folder}/{group}-2"
        os.mkdir(path)
        assert devices._attach(path, more)
        joins.append(lambda: _join(path))
    try:
        for join in joins:
            assert opened(join, paths) == {"tun", "null", "mknod"}
            assert opened(join, paths, os.O_RDWR) == {"null", "mknod"}
            assert opened(join, blocks, os.O_RDWR) == {"loop", "mknod"}
    finally:
        if folder:
            os.rmdir(path)


def _join(folder):
    with open(f"{folder}/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")


def test_a_device_of_the_host(own_root, tmp_path):
    os.mknod(tmp_path / "tun", stat.S_IFCHR | 0o640, os.makedev(10, 200))
    os.chown(tmp_path / "tun", 7, 70)
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    given = ("--device", f"{tmp_path}/tun:/dev/net/tun:r", "--device", f"{tmp_path}/disk:/dev/disk")
    script = (
        "stat -c '%a %u %g %t:%T %N' /dev/net/tun; for w in r w; do test -$w /dev/net/tun; exec 3</dev/net/tun; done"
    )
    result = vmctl("run", "--network", "none", *given, "tiny", "--", "sh", "-c", script)
    assert (result.code, result.out) == (0, "640 7 70 a:c8 /dev/net/tun\n"), result
    texts = [f"{tmp_path}/tun: the driver of a device of the host is in reach"]
    texts.append(f"{tmp_path}/disk: a disk of the host: the workload can read and change all of it, past all rights")
    assert result.err == "".join(f"vmctl: warning: devices: {text}\n" for text in texts)
    ok("create", "--name", "kept", "--network", "none", *given, "tiny", "--", "sleep", "1000")
    for _ in "once", "again":  # each start has separate nodes
        ok("start", "kept")
        assert json.loads(ok("inspect", "kept"))[0]["weakened"] == [f"devices: {text}" for text in texts]
        assert ok("exec", "kept", "--", "cat", "/proc/mounts").count("/dev/net/tun tmpfs ro,nosuid,noexec") == 1
        ok("stop", "-t", "0", "kept")
    ok("rm", "kept")
    with open("/proc/mounts", encoding="utf-8") as file:
        assert str(own_root) not in file.read()


def test_a_device_of_an_ordinary_user(ordinary_caller):
    user = ordinary_caller.user
    user.give_image()
    run = ("run", "--network", "none", "--device")
    script = "head -c 2 /dev/more | wc -c; echo x >/dev/more"
    assert user.vmctl(*run, "/dev/zero:/dev/more", "tiny", "--", "sh", "-c", script).out == "2\n"
    for text, why in (("/dev/zero:/dev/more:r", "only root can limit"), ("/dev/kmsg", "its mode is cr")):
        result = user.vmctl(*run, text, "tiny", "--", "true")
        assert result.code == 125
        assert why in result.err


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("/dev/none-such", "/dev/none-such of the host: No such file or directory"),
        ("/dev/net", "/dev/net is a folder"),
        ("/etc/passwd:/dev/x", "/etc/passwd is not a device"),
        ("/dev/zero:/x", "expected a place below /dev, got '/x'"),
        ("/dev/zero:/dev/../x", "expected a place below /dev"),
        ("/dev/zero:/dev/.init", "expected a place below /dev"),
        ("/dev/zero:/dev/pts/0", "/dev/pts/0 is a device that every instance has"),
        ("/dev/zero:/dev/x:m", "expected r, w or rw as the access, got 'm'"),
        ("/dev/zero:/dev/x:rr", "expected a device such as /dev/fuse"),
        ("zero", "expected a device such as /dev/fuse"),
        ("a.test/gpu=all", "expected a device such as /dev/fuse"),
        ("/dev/zero:/dev/y/z", "the place /dev/y/z is given twice"),
    ],
)
def test_a_device_that_cannot_be(own_root, device, why):
    assert why in refused("run", "--device", "/dev/zero:/dev/y", "--device", device, "tiny", "--", "true")


@pytest.mark.parametrize(("mode", "why"), [("vm", "a guest has its own devices"), ("host", "mode host has no list")])
def test_a_mode_without_devices_of_the_host(own_root, mode, why):
    assert why in refused("run", "--mode", mode, "--device", "/dev/zero:/dev/y", "tiny", "--", "true")


def test_nothing_weakens_a_container_here(own_root, tmp_path):
    path = tmp_path / "box.yaml"
    path.write_text("image: tiny\nnetwork: none\ncommand: [sleep, '100']\n")
    assert "warning" not in vmctl("up", str(path)).err
    script = "dd if=/dev/zero of=/dev/null count=1 bs=1 2>&1; head -c 1 /dev/urandom | wc -c; : </dev/ptmx"
    assert ok("exec", "box", "--", "sh", "-c", script)
    ok("down", "box")
