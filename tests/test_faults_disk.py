"""A full disk at every verb: a workload can be ended, a start is refused with the reason, and listings go on."""

import json
import os

import pytest
from support import host_state
from support.commands import inspect, ok, refused, vmctl
from support.full_disk import KINDS, full_disk
from support.host_state import PREFIX, own_state

from vmctl import backends, paths
from vmctl.instances import instance

QUICK = [mode for mode in sorted(backends.modes()) if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
PATIENT = (
    "command: [sh, -c, 'trap \"exit 3\" TERM; echo ready; while :; do sleep 0.1; done']\n"
    "ready: {log: ready, timeout: 280s}\n"
)


@pytest.fixture(params=KINDS)
def disk(request, monkeypatch):
    """A small disk as VMCTL_ROOT; images and caches are elsewhere."""
    images, cache = paths.images_root(), paths.cache_root()
    with full_disk(request.param) as small:
        monkeypatch.setenv("VMCTL_ROOT", small.root)
        os.makedirs(paths.state_root())
        os.symlink(images, paths.images_root())
        os.symlink(cache, paths.cache_root())
        small.before = own_state()
        yield small
        small.free()
        for name in instance.names():
            vmctl("rm", "-f", name)


def up(tmp_path, mode, text=PATIENT, name=PREFIX):
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"name: {name}\nimage: tiny\n{text}")
    ok("up", "--mode", mode, str(path))
    return str(path)


def left(disk):
    """Return what is left of an instance on the disk or the host."""
    disk.free()
    return [one for now, then in zip(own_state(), disk.before, strict=True) for one in now - then]


@EACH_QUICK_MODE
def test_stop_and_rm(disk, tmp_path, mode):
    up(tmp_path, mode)
    disk.fill()
    assert ok("stop", PREFIX) == f"{PREFIX}\n"
    assert vmctl("wait", PREFIX) == (3, "3\n", "")
    assert inspect(PREFIX)["exit_source"] == "workload"
    assert ok("rm", PREFIX) == f"{PREFIX}\n"
    assert left(disk) == []


@EACH_QUICK_MODE
@pytest.mark.parametrize("verb", ["down", "rm -f", "kill", "stop -t 0"])
def test_what_ends_a_workload(disk, tmp_path, mode, verb):
    path = up(tmp_path, mode)
    disk.fill()
    ok(*verb.split(), path if verb == "down" else PREFIX)
    if verb in ("kill", "stop -t 0"):
        assert vmctl("wait", PREFIX).code in (137, 3)
        assert ok("prune", "-f").startswith("KIND")
    assert left(disk) == []


def test_a_replaced_signal_is_known(disk, tmp_path):
    up(tmp_path, "container", "command: [sleep, '1000']\n")
    disk.fill()
    ok("stop", PREFIX)
    assert vmctl("wait", PREFIX).code == 143


@EACH_QUICK_MODE
def test_what_shows_and_looks_goes_on(disk, tmp_path, mode):
    up(tmp_path, mode)
    disk.fill()
    assert [row["status"] for row in json.loads(ok("ps", "--format", "json"))] == ["running"]
    assert ok("exec", PREFIX, "--", "echo", "x") == "x\n"
    assert "ready" in ok("logs", PREFIX)
    for words in (("inspect", PREFIX), ("df", "-v"), ("diff", PREFIX), ("image", "ls")):
        ok(*words)
    assert vmctl("doctor").code in (0, 1)


@EACH_QUICK_MODE
def test_what_starts_says_why_not_and_leaves_nothing(disk, tmp_path, mode):
    path = up(tmp_path, mode)
    disk.fill()
    before = host_state.mounts(), host_state._cgroups(), instance.names()
    for words in (("run", "--mode", mode, "tiny", "--", "true"), ("up", "--mode", mode, "--name", f"{PREFIX}b", path)):
        assert "No space left on device" in refused(*words)
        assert (host_state.mounts(), host_state._cgroups(), instance.names()) == before, words


@EACH_QUICK_MODE
@pytest.mark.parametrize("disk", ["blocks"], indirect=True)
def test_a_workload_that_fills_the_disk_ends_with_its_own_code(disk, tmp_path, mode):
    up(tmp_path, mode, "command: [sh, -c, 'yes | head -c 60000000; exit 3']\n")
    assert vmctl("wait", "--timeout", "60", PREFIX).code == 3
    ok("down", PREFIX)
    assert left(disk) == []


@EACH_QUICK_MODE
@pytest.mark.parametrize("disk", ["blocks"], indirect=True)
def test_a_workload_that_fills_the_disk_can_be_stopped(disk, tmp_path, mode):
    up(tmp_path, mode, "command: [sh, -c, 'yes | head -c 60000000; echo > /done; while :; do sleep 0.1; done']\n")
    ok("stop", "-t", "1", PREFIX)
    ok("rm", PREFIX)
    assert left(disk) == []


def test_a_folder_that_keeps_its_name_is_removed_in_an_order_that_can_be_repeated(empty_root, monkeypatch):
    """On a full disk the new name of a folder may not fit."""
    from vmctl.linux import filetree
    from vmctl.spec.workload import Workload

    inst = instance.create(Workload("kept", "tiny"), "host")
    for name in ("journal", "zz", "aa"):
        open(inst.path(name), "w").close()
    removed, unlink = [], os.unlink
    monkeypatch.setattr(os, "unlink", lambda name, **at: (removed.append(name), unlink(name, **at)))
    filetree.remove_tree(inst.directory, last=("state.jsonl", "workload.json"))
    assert set(removed[-2:]) == {"state.jsonl", "workload.json"}
    assert not os.path.exists(inst.directory)


def test_images_are_removed_from_a_full_disk(disk, tmp_path):
    """Removing is how one gets space back; what adds something is refused with the reason and changes nothing."""
    archive = str(tmp_path / "tiny.tar")
    ok("image", "export", "tiny", "-o", archive)
    os.unlink(paths.images_root())
    for name in ("one", "two"):
        ok("image", "import", archive, "--name", name)
    ok("image", "rm", "two")
    disk.fill()
    before = ok("image", "ls", "--format", "json")
    error = refused("image", "import", archive, "--name", "three")
    assert "No space left" in error or "full" in error
    assert ok("image", "ls", "--format", "json") == before
    ok("image", "rm", "one")
    assert json.loads(ok("image", "ls", "--format", "json")) == []
    ok("prune", "-f")
    assert left(disk) == []


@pytest.mark.parametrize("step", ["RUN head -c 60000000 /dev/zero >/made", "COPY large /made", "ENV A=b"])
def test_a_build_on_a_full_disk(disk, tmp_path, step):
    """It ends with the reason, its earlier images stay, and what it had made is removed."""
    archive, context = str(tmp_path / "tiny.tar"), tmp_path / "context"
    ok("image", "export", "tiny", "-o", archive)
    os.unlink(paths.images_root())
    ok("image", "import", archive, "--name", "tiny")
    context.mkdir()
    (context / "large").write_bytes(os.urandom(40 << 20))
    (context / "Dockerfile").write_text(f"FROM tiny\n{step}\n")
    before = ok("image", "ls", "--format", "json")
    if step.startswith("ENV") or disk.kind == "inodes":
        disk.fill()
    result = vmctl("image", "build", "-t", "new", str(context))
    assert result.code != 0, result
    assert "internal error" not in result.err
    assert "No space left" in result.err or "full" in result.err, result
    assert ok("image", "ls", "--format", "json") == before
    ok("image", "rm", "tiny")
    ok("prune", "-f")
    assert left(disk) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("disk", ["blocks"], indirect=True)
def test_a_guest_on_a_full_disk(disk, tmp_path):
    up(tmp_path, "vm", PATIENT)
    disk.fill()
    assert "No space left" in refused("up", "--mode", "vm", "--name", f"{PREFIX}b", str(tmp_path / f"{PREFIX}.yaml"))
    ok("stop", PREFIX)
    assert vmctl("wait", PREFIX).code == 3
    ok("rm", PREFIX)
    assert left(disk) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("disk", ["inodes"], indirect=True)
def test_a_guest_is_killed_on_a_full_disk(disk, tmp_path):
    up(tmp_path, "vm", PATIENT)
    disk.fill()
    ok("kill", PREFIX)
    assert vmctl("wait", PREFIX).code == 137
    ok("rm", PREFIX)
    assert left(disk) == []
