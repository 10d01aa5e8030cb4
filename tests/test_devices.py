"""The list of devices that a control group may open, by either version of control groups."""

import os
import stat

import pytest
from support.commands import ok, vmctl

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


def opened(join, paths):
    """Return the names of the devices that a process which joins a group can open, and whether it can make one."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            join()
            for name, path in paths.items():
                try:
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
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
        with open(f"{unified}/cgroup.procs", "w") as file:
            file.write("0")

    assert devices._attach(unified)
    assert opened(join, paths) == {*NODES, "mknod"}
    blocks = nodes({"disk": (254, 0), "loop": (7, 0), "one": (1, 3)}, stat.S_IFBLK)
    assert opened(join, blocks) == {"mknod"}


def test_nothing_weakens_a_container_here(own_root, tmp_path):
    path = tmp_path / "box.yaml"
    path.write_text("image: tiny\nnetwork: none\ncommand: [sleep, '100']\n")
    assert "warning" not in vmctl("up", str(path)).err
    script = "dd if=/dev/zero of=/dev/null count=1 bs=1 2>&1; head -c 1 /dev/urandom | wc -c; : </dev/ptmx"
    assert ok("exec", "box", "--", "sh", "-c", script)
    ok("down", "box")
