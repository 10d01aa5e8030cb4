"""`vmctl doctor --fix` removes what has no owner any more, reports it, and touches nothing else."""

import json
import os
import shutil
from contextlib import suppress

import pytest
from support import host_state
from support.commands import free_port, ok, vmctl, wait_for
from support.host_state import PREFIX, left_behind, own_state

from images.store import staging, store
from vmctl import backends, ids, needs, paths
from vmctl.instances import instance, orphans
from vmctl.linux import cgroups, delegation, mountinfo, processes
from vmctl.net import catalog, switch
from vmctl.spec.workload import Workload
from vmctl.stacks import record
from vmctl.volumes import store as volumes

QUICK = [mode for mode in sorted(backends.modes()) if not backends.load(mode).features.own_kernel]


@pytest.fixture(scope="module")
def made_store(tmp_path_factory):
    """A store with image `tiny`, for a copy of it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMCTL_ROOT", str(folder))
        ok("image", "build", "tiny")
        return paths.images_root()


@pytest.fixture
def root(own_root, made_store):
    """A state root with a separate store."""
    os.unlink(paths.images_root())
    shutil.copytree(made_store, paths.images_root())
    yield own_root
    for name in instance.names():
        vmctl("rm", "-f", name)
    vmctl("doctor", "--fix")  # also what `rm -f` of a half-deleted instance did not know
    mountinfo.unmount_all(str(own_root))


def up(folder, mode, name=PREFIX, more=""):
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nimage: tiny\ncommand: [sleep, '1000']\n{more}")
    ok("up", "--mode", mode, str(path))
    return instance.load(name)


def fixed(code=0):
    result = vmctl("doctor", "--fix", "--format", "json")
    assert result.code == code, result
    return json.loads(result.out)


def left_line():
    (line,) = (check for check in json.loads(vmctl("doctor", "--format", "json").out) if check["name"] == "left behind")
    return line


def crash(inst):
    """Leave what a host leaves whose folder of the instance was deleted by hand."""
    mountinfo.unmount_all(inst.directory)
    while os.path.exists(inst.directory):
        with suppress(OSError):  # the supervisor may just be writing a file there
            shutil.rmtree(inst.directory)


@pytest.mark.parametrize("mode", QUICK)
def test_everything_of_an_instance_whose_folder_is_gone(root, mode):
    before = own_state()
    inst = up(root, mode, more=f"ports: ['{free_port()}:8000']\n" if mode == "container" else "")
    crash(inst)
    assert own_state() != before
    line = left_line()
    assert (line["ok"], line["hint"]) == (None, "`vmctl doctor --fix` removes it")
    rows = fixed()
    assert {row["done"] for row in rows} == {"removed"}
    kinds = [row["kind"] for row in rows]
    assert {"process", "cgroup", "layer mount"} <= set(kinds)
    if mode == "container":
        assert {"address", "network"} <= set(kinds)
        assert kinds.count("process") == 2  # supervisor and forwarder
        assert not switch.exists()
    assert not processes.alive(inst.state.pid, inst.state.pid_start)
    assert own_state()._replace(files=before.files) == before
    assert fixed() == []
    assert left_line()["ok"]
    up(root, mode)
    ok("down", "-t", "0", PREFIX)


def test_the_port_of_one_of_two_instances(root):
    other = up(root, "container", name=f"{PREFIX}b")
    gone = up(root, "container")
    crash(gone)
    assert {"address"} <= {row["kind"] for row in fixed()}
    assert switch.inside(lambda: set(os.listdir("/sys/class/net")) or True)
    assert ok("exec", other.name, "--", "ip", "route")
    assert os.listdir(switch.folder()).count(gone.state.address) == 0
    assert len(host_state._switch_links() & {f"vm{gone.id}"}) == 0
    ok("rm", "-f", other.name)
    assert not switch.exists()


def test_a_guest_whose_folder_is_gone(guest_root, tmp_path):
    before = host_state.mounts(), host_state._cgroups()
    inst = up(tmp_path, "vm")
    crash(inst)
    rows = fixed()
    assert {row["done"] for row in rows} == {"removed"}
    assert {"cgroup", "run folder"} <= {row["kind"] for row in rows}
    wait_for(lambda: not processes.alive(inst.state.pid, inst.state.pid_start))
    assert (host_state.mounts(), host_state._cgroups()) == before
    assert inst.directory not in ids.owners().values()
    assert fixed() == []


def test_unfinished_folders_stages_and_half_written_files(root):
    os.makedirs(os.path.join(paths.instances_root(), ".web.4194305", "upper"))
    os.makedirs(os.path.join(paths.run_root(), "0123abcd", "libvirt"))
    os.makedirs(paths.cache_root())
    volumes.create("data")
    os.makedirs(os.path.join(paths.volumes_root(), ".new.0123abcd.4194305", "data"))
    os.makedirs(os.path.join(paths.volumes_root(), f".new.0123abcd.{os.getpid()}", "data"))  # is being made
    records = [record.folder("shop"), catalog.folder()]
    for folder in records:
        os.makedirs(folder)
    records += [paths.cache_root(), store.path(), store.path("blobs", "sha256"), volumes.folder("data")]
    for folder in records:
        open(os.path.join(folder, "x.4194305.new"), "w").close()
        open(os.path.join(folder, f"y.{os.getpid()}.new"), "w").close()  # is being written
    os.makedirs(store.path("stages", "0123456789ab"))
    with staging.staging() as stage:
        os.rename(store.path("stages"), store.path("kept"))  # `staging` itself removes what is abandoned
        os.makedirs(store.path("kept", "0123456789ab"))
        os.rename(store.path("kept"), store.path("stages"))
        found = sorted(row["kind"] for row in fixed())
        assert os.path.exists(stage.folder)
    assert found == ["half-written file"] * 6 + ["run folder", "stage", "unfinished folder", "unfinished volume"]
    assert fixed() == []


def test_what_has_an_owner_is_left_alone(root, tmp_path, monkeypatch):
    """Running, stopped, being made, unreadable, or of another state root."""
    for mode in QUICK:
        up(root, mode, name=f"{PREFIX}{mode}")
    ok("stop", "-t", "0", f"{PREFIX}host")
    new = instance.create(Workload(f"{PREFIX}new", "tiny"), "container", held=True)
    os.makedirs(os.path.join(paths.instances_root(), "damaged"))
    other = next(iter(cgroups.hierarchy().mounts.values())) + f"/{delegation.PARENT}/{PREFIX}x.0123abcd"
    os.mkdir(other)  # without a mark: by an earlier version, perhaps of another state root
    try:
        assert orphans.find() == []
        monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "second"))
        os.makedirs(paths.run_root())
        assert orphans.find() == []
        assert fixed() == []
    finally:
        os.rmdir(other)
        new.release()  # or its removal waits
    monkeypatch.setenv("VMCTL_ROOT", str(root))
    assert ok("exec", f"{PREFIX}container", "--", "echo", "x") == "x\n"


def test_what_cannot_be_removed_is_reported(root, monkeypatch, capsys):
    from vmctl.cli import doctor

    def refuse():
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(doctor, "_orphans", lambda: [needs.Orphan("mount", "/x", refuse)])
    assert doctor._fix("table") == 1
    assert "failed: [Errno 16] Device or resource busy" in capsys.readouterr().out


@pytest.mark.alone
def test_nothing_is_left_on_the_host(root, tmp_path):
    before = host_state.host_state()
    crash(up(tmp_path, "container", more=f"ports: ['{free_port()}:8000']\nresources: {{memory: 64M}}\n"))
    fixed()
    assert left_behind(before) == {}


def test_nothing_to_remove(empty_root):
    assert ok("doctor", "--fix") == "nothing was left behind\n"
    assert fixed() == []
