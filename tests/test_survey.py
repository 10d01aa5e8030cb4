"""Instances that cannot be read: listed as unknown with the reason, removable by force, and hiding no other one."""

import errno
import json
import os
import random
import shutil
import signal
from contextlib import suppress

import pytest
from support.commands import ok, refused, vmctl
from support.kept_instances import DAMAGES, FORMS, changed, put

from vmctl import backends, engine, survey
from vmctl.cli import inspect, ps
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.linux import mountinfo, processes, syscalls
from vmctl.linux.cgroups import Cgroup
from vmctl.records import UnreadableError


@pytest.fixture(autouse=True)
def unmounted(tmp_path):
    """Unmount the layers that a test leaves: `rm -f` cannot release those of an instance that it cannot read."""
    yield
    mountinfo.unmount_all(str(tmp_path))


@pytest.fixture
def good(own_root):
    """Start an instance with which nothing is wrong."""
    yield sleeper(own_root)
    vmctl("rm", "-f", "good")


def sleeper(root):
    path = root / "sleeper.yaml"
    path.write_text("image: tiny\ncommand: [sleep, '1000']\nnetwork: none\n")
    ok("up", "--name", "good", str(path))
    return instance.load("good")


def listed(*words):
    result = vmctl("ps", "--format", "json", *words)
    assert result.code == 0, result
    return {row["name"]: row for row in json.loads(result.out)}


@pytest.mark.parametrize("title", ["state is a FIFO", "workload cut", "other mode"])
def test_one_that_cannot_be_read_hides_no_other_and_can_be_removed(own_root, good, title):
    damage, reason = DAMAGES[title]
    folder = put(own_root, "1", "bad")
    damage(folder)
    rows = listed()
    assert (rows["good"]["status"], rows["bad"]["status"]) == ("running", "unknown")
    assert reason in rows["bad"]["reason"]
    assert rows["bad"].keys() == rows["good"].keys()
    table = vmctl("ps", "-a")
    assert "unknown" in table.out
    assert f"{rows['bad']['reason']}\nhint: `vmctl rm -f bad`" in table.err
    assert ok("ps", "-q").split() == ["bad", "good"]
    documents = json.loads(ok("inspect", "bad", "good"))
    assert [document["status"] for document in documents] == ["unknown", "running"]
    assert documents[0]["reason"] == rows["bad"]["reason"]
    for verb in (("down", "bad"), ("rm", "bad")):
        assert "hint: `vmctl rm -f bad`" in refused(*verb)
    refused("stop", "bad")
    assert folder.exists()
    removed = vmctl("rm", "-f", "bad", "good")
    assert (removed.code, removed.out) == (0, "bad\ngood\n")
    assert not folder.exists()


@pytest.mark.parametrize("title", DAMAGES)
def test_each_damage_has_a_reason_and_can_be_removed(own_root, title):
    damage, reason = DAMAGES[title]
    put(own_root, "1", "kept")
    damage(put(own_root, "1", "bad"))
    bad, other = survey.survey()
    assert (bad.name, bad.status, other.name, other.status) == ("bad", "unknown", "kept", "exited")
    assert bad.reason.startswith("bad")
    assert reason in bad.reason
    assert len(bad.reason) < 200
    assert inspect._document(bad)["reason"] == ps.row(bad)["reason"] == bad.reason
    for refuse in (engine.rm, engine.down):
        with pytest.raises(UnreadableError) as caught:
            refuse("bad")
        assert str(caught.value) == bad.reason
        assert caught.value.hint.startswith("`vmctl rm -f bad`")
    assert instance.names() == ["bad", "kept"]
    engine.rm("bad", force=True)
    assert instance.names() == ["kept"]


def test_other_listings_go_on(own_root, good):
    folder = put(own_root, "1", "bad")
    DAMAGES["workload cut"][0](folder)
    for verb in (("df",), ("df", "-v"), ("image", "ls"), ("image", "ls", "--format", "json")):
        assert vmctl(*verb).code == 0, verb
    document = json.loads(ok("df", "-v", "--format", "json"))
    assert [(one["name"], one["status"]) for one in document["instances"]] == [("bad", "unknown"), ("good", "running")]


def test_prune_keeps_what_cannot_be_read_and_goes_on(empty_root):
    """Without images: the store of this machine is not for a test to prune."""
    for name in ("a", "bad", "b", "c"):
        put(empty_root, "1", name)
    DAMAGES["workload cut"][0](empty_root / "lib/instances/bad")
    with open(empty_root / "lib/instances/b/journal", "a") as file:
        file.write('{"kind": "mount", "path": 7}\n')
    result = vmctl("prune", "-f", "--format", "json")
    assert result.code == 0, result
    assert [row["name"] for row in json.loads(result.out)] == ["a", "c"]
    assert "b could not be removed completely" in result.err
    assert "hint: `vmctl rm -f b`" in result.err
    assert "hint: `vmctl rm -f bad`" in result.err
    assert instance.names() == ["b", "bad"]


def test_an_end_that_nobody_has_seen_is_unknown(own_root, good):
    """The supervisor, which would have recorded it, was killed."""
    os.kill(good.state.supervisor_pid, signal.SIGKILL)
    assert ok("stop", "-t", "0", "good") == "good\n"
    row = listed("-a")["good"]
    assert (row["status"], row["exit_code"], row["exit_source"]) == ("exited", None, "unknown")
    assert "the exit code of good is unknown" in refused("wait", "good")
    assert ok("down", "good") == "good\n"


def test_verbs_with_several_names_go_on_after_a_failure(own_root, good):
    folder = put(own_root, "1", "bad")
    DAMAGES["no state"][0](folder)
    for words in (("kill", "-s", "CONT"), ("stop", "-t", "0"), ("down", "-t", "0")):
        result = vmctl(*words, "bad", "good")
        assert (result.code, result.out) == (125, "good\n"), (words, result)
        assert "bad is damaged: state.jsonl is missing" in result.err
    assert "good" not in instance.names()


def test_logs_of_one_that_cannot_be_read(own_root):
    folder = put(own_root, "1", "bad")
    (folder / "stdout.log").write_text("out\n")
    (folder / "stderr.log").write_text("err\n")
    DAMAGES["workload cut"][0](folder)
    result = vmctl("logs", "-f", "bad")
    assert (result.code, result.out) == (0, "out\n")
    assert result.err.endswith("err\n")
    result = vmctl("logs", "--boot", "bad")
    assert (result.code, result.out) == (125, "")
    assert "vmctl: bad has no console\n" in result.err
    assert "there is no instance other" in refused("logs", "other")


ODD_ENTRIES = [
    '{"kind": "mount", "path": 7}',
    '{"kind": "mount", "path": "@OTHER@"}',
    '{"kind": "mount", "path": "@ROOT@/lib/instances/bad/../../../../other"}',
    '{"kind": "cgroup", "name": []}',
    '{"kind": "cgroup", "name": "../no-such-group"}',
    '{"kind": "cgroup", "name": ""}',
    '{"kind": "frozen", "name": "../no-such-group"}',
    '{"kind": "process", "pid": "x", "start": {}}',
    '{"kind": "process", "pid": -1, "start": 3}',
    f'{{"kind": "process", "pid": {"9" * 400}, "start": 3}}',
    '{"kind": "process"}',
    '{"kind": "lease"}',
    '{"kind": "lease", "name": ".."}',
    '{"kind": "lease", "name": ""}',
    '{"kind": "link"}',
    '{"kind": "link", "address": 7, "device": []}',
    '{"kind": "layer"}',
    '{"kind": "of a later vmctl"}',
    '{"kind": "link", "address": "switch", "device": "x"}',
    '{"kind": "link", "address": "", "device": "x"}',
    '{"kind": "link", "address": "../..", "device": "x"}',
    '{"kind": "link", "address": "10.77.0.9", "device": "x", "network": "y", "subnet": "1.2.3.4/99999", "bridge": 1}',
    '{"kind": "link", "address": "10.77.0.9", "device": "x", "network": "y", "subnet": "no/8", "bridge": 1}',
    '{"kind": "link", "address": "10.77.0.9", "device": "vm1", "network": "br0", "subnet": "10.0.0.0/8", "bridge": 1}',
    '{"kind": "link", "address": "10.77.0.9", "device": "docker0"}',
    '{"kind": "layer", "key": ""}',
    '{"kind": "layer", "key": ".."}',
    '{"kind": "layer", "key": "../../lib/x"}',
    '{"kind": 7}',
    "not JSON",
]


@pytest.mark.parametrize("entry", ODD_ENTRIES)
def test_a_damaged_entry_of_a_journal_is_left_by_force_only(own_root, tmp_path, entry):
    """What is not vmctl's is not touched, even if an entry names it."""
    other = tmp_path / "other"
    other.mkdir()
    syscalls.mount("tmpfs", str(other), "tmpfs", 0, "size=4k")
    folder = put(own_root, "1", "bad")
    with open(folder / "journal", "a") as file:
        file.write(entry.replace("@OTHER@", str(other)).replace("@ROOT@", str(own_root)) + "\n")
    assert "bad could not be removed completely" in refused("rm", "bad")
    assert "hint: `vmctl rm -f bad`" in refused("down", "bad")
    result = vmctl("rm", "-f", "bad")
    assert (result.code, result.out) == (0, "bad\n"), result
    assert "these objects are left: " in result.err
    assert not folder.exists()
    assert os.path.ismount(other)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_text('{"format": 99, "kind": "x"}\n'), "journal was written by a later vmctl"),
        (lambda path: (path.unlink(), path.mkdir()), "journal cannot be read: it is not a regular file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "journal cannot be read: it is not a regular file"),
    ],
    ids=["later", "folder", "FIFO"],
)
def test_a_journal_that_cannot_be_read(own_root, damage, reason):
    folder = put(own_root, "1", "bad")
    damage(folder / "journal")
    (document,) = json.loads(ok("inspect", "bad"))
    assert (document["status"], document["journal"]) == ("exited", None)
    assert reason in document["reason"]
    assert reason in refused("rm", "bad")
    assert reason in vmctl("rm", "-f", "bad").err
    assert not folder.exists()


def test_removal_by_force_undoes_what_the_host_knows(own_root, good):
    """Of a live one: its processes, mounts and cgroup go; what only its mode can undo is named."""
    os.unlink(good.path("state.jsonl"))
    removed = vmctl("rm", "-f", "good")
    assert (removed.code, removed.out) == (0, "good\n")
    assert "these objects are left: " in removed.err
    assert "layer " in removed.err
    check_gone(good)


def test_removal_by_force_undoes_all_if_the_state_names_the_mode(own_root, good):
    os.unlink(good.path("workload.json"))
    removed = vmctl("rm", "-f", "good")
    assert (removed.code, removed.out, removed.err) == (0, "good\n", "")
    check_gone(good)
    assert mountinfo.below(str(own_root)) == []


def check_gone(inst):
    assert not processes.alive(inst.state.pid, inst.state.pid_start)
    assert not processes.alive(inst.state.supervisor_pid, inst.state.supervisor_start)
    assert Cgroup(inst.cgroup).pids() == []
    assert not os.path.exists(inst.directory)
    assert not os.path.exists(inst.run_dir)
    assert inst.name not in instance.names()


def test_a_backend_that_fails_hides_no_other(own_root, good, monkeypatch):
    """It comes from outside, and may raise anything."""
    folder = put(own_root, "1", "bad")
    DAMAGES["other mode"][0](folder)
    load = backends.load
    monkeypatch.setattr(backends, "load", lambda mode: 1 / 0 if mode == "no-such-mode" else load(mode))
    bad, other = survey.survey()
    assert (bad.status, bad.reason) == ("unknown", "bad: internal error: ZeroDivisionError: division by zero")
    assert (other.name, other.status) == ("good", "running")


def test_names_that_no_instance_can_have_are_not_listed(own_root, tmp_path):
    root = own_root / "lib/instances"
    for name in ("a b", ".x.1", "-f", "\udcff"):
        (root / name).mkdir(parents=True)
    (root / "file").write_text("no folder")
    assert vmctl("ps", "-a", "--format", "json").out == "[]\n"
    victim = tmp_path / "victim"
    victim.mkdir()
    for name in ("", ".", "..", "../images", str(victim), "a b", "file"):
        assert "there is no instance" in refused("rm", "-f", name)
    assert victim.exists()
    assert (own_root / "lib/images").exists()


def test_a_full_disk_prevents_no_ending(own_root):
    """The record of the end cannot be written, nor the pid of who holds the lock."""
    folder = own_root / "lib/instances"
    folder.mkdir()
    syscalls.mount("tmpfs", str(folder), "tmpfs", 0, "size=1m")
    try:
        inst = sleeper(own_root)
        with suppress(OSError), open(folder / "full", "wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)), open(folder / "more", "w") as file:
            file.write("x")
        assert listed()["good"]["status"] == "running"
        assert ok("stop", "-t", "0", "good") == "good\n"
        assert listed("-a")["good"]["status"] == "exited"
        assert ok("rm", "good") == "good\n"
        check_gone(inst)
    finally:
        mountinfo.unmount_all(str(folder))


# A short fuzzer: the listings show every instance, and `rm -f` removes it, for any bytes in its files.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("file", ["workload.json", "state.jsonl", "journal"])
def test_whatever_a_file_contains(own_root, form, file):
    chance = random.Random(f"{form}/{file}/rows")
    for number in range(150):
        folder = put(own_root, form)
        (folder / file).write_bytes(changed((folder / file).read_bytes(), chance))
        (seen,) = survey.survey()
        row = ps.row(seen)
        texts = [ps._cell(name, row[name]) for name in ps.COLUMNS]
        assert len(texts) == len(ps.COLUMNS)
        json.dumps([row, inspect._document(seen)], allow_nan=False)
        if number % 5 == 0:
            with suppress(VmctlError):
                engine.rm("kept")
            if folder.exists():
                engine.rm("kept", force=True)
            assert not folder.exists()
        else:
            shutil.rmtree(folder)
