"""What lies on disk: keys by name with a format number, digests that a new key does not change, the form before."""

import json
import os
import random
import shutil

import pytest
from support.commands import ok, refused, vmctl

from vmctl import instance, oldforms, records, spec
from vmctl.errors import VmctlError
from vmctl.journal import Journal
from vmctl.linux import mountinfo, processes
from vmctl.named import NamedTuple
from vmctl.records import UnreadableError
from vmctl.workload import Bytes, Ready, Workload

HERE = os.path.dirname(__file__)
DATA = os.path.join(HERE, "data", "instances")
FORMS = sorted(os.listdir(DATA))
WORKLOADS = os.path.join(HERE, "..", "configs", "workloads")

# A digest identifies a workload in the results of benchmarks: none of these may change when keys are added.
PINNED = {
    "postgres.yaml": "sha256:aa5f89df710443f6f5cb3ca75e3916889c9525f6ad7f7c583c65d10227424fc6",
    "web.yaml": "sha256:d81a2a39acc9685a8552c57e1118a60550769e2d9d8f97858b4d38777dad97a6",
}


@pytest.fixture(autouse=True)
def unmounted(tmp_path):
    """Unmount the layers that a test leaves: `rm -f` cannot release those of an instance that it cannot read."""
    yield
    mountinfo.unmount_all(str(tmp_path))


def put(root, form, name="kept"):
    """Put the committed instance of a form into a state folder, and return its folder."""
    folder = root / "lib/instances" / name
    shutil.copytree(os.path.join(DATA, form), folder)
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("@ROOT@", str(root)))
    return folder


def test_the_digests_of_the_shipped_workloads():
    found = {name: spec.load(os.path.join(WORKLOADS, name)).digest() for name in sorted(os.listdir(WORKLOADS))}
    assert found == PINNED


def test_a_new_key_changes_no_digest():
    """The class as a later version might have it: one key more, in the workload and in one of its parts."""
    work = Workload("web", "tiny", ("true",), ready=Ready(tcp=80))
    shown = records.differing(work)
    assert shown == {"name": "web", "image": "tiny", "command": ["true"], "ready": {"tcp": 80}}

    class LaterReady(NamedTuple):
        tcp: int
        period_s: float = 1.0

    class Later(NamedTuple):
        name: str
        image: str
        command: tuple[str, ...]
        ready: LaterReady
        labels: tuple[str, ...] = ()

    assert records.differing(Later("web", "tiny", ("true",), LaterReady(80))) == shown
    assert records.differing(Later("web", "tiny", ("true",), LaterReady(80), ("a",))) != shown


def test_each_value_changes_the_digest():
    work = Workload("web", "tiny", ("true",))
    others = [
        work._replace(command=("false",)),
        work._replace(env={"A": "b"}),
        work._replace(resources=work.resources._replace(memory_bytes=Bytes(1 << 20))),
        work._replace(ready=Ready(tcp=80)),
        work._replace(ready=Ready(tcp=81)),
    ]
    assert len({one.digest() for one in (work, *others)}) == len(others) + 1


def test_the_file_names_its_format_and_every_key():
    values = json.loads(Workload("web", "tiny").to_json())
    assert values["format"] == records.FORMAT
    assert values.keys() - {"format"} == set(Workload._fields)
    assert values["resources"] == {"cpus": None, "memory_bytes": None, "pids": None, "disk_bytes": None}


def test_a_missing_key_has_its_default():
    assert Workload.from_json('{"format": 1, "name": "a", "image": "b"}') == Workload("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("\0", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("7", "expected an object"),
        ('{"format": 2, "name": "a", "image": "b"}', "written by a later vmctl"),
        ('{"format": "x", "name": "a", "image": "b"}', "written by a later vmctl"),
        ('{"name": "a"}', "the key image is missing"),
        ('{"name": "a", "image": "b", "colour": "red"}', 'the unknown key "colour"'),
        ('{"name": "a", "image": "b", "ready": {"colour": 1}}', 'the unknown key "colour"'),
        ('{"name": 7, "image": "b"}', "name is damaged: expected str, got 7"),
        ('{"name": "a", "image": "b", "init": 1}', "init is damaged: expected bool"),
        ('{"name": "a", "image": "b", "command": "sh"}', "command is damaged"),
        ('{"name": "a", "image": "b", "command": [1]}', "command is damaged"),
        ('{"name": "a", "image": "b", "env": {"A": 1}}', "env is damaged"),
        ('{"name": "a", "image": "b", "network": "moon"}', "network is damaged"),
        ('{"name": "a", "image": "b", "files": [{"content": "x"}]}', "the key path is missing"),
        ('{"name": "a", "image": "b", "resources": {"memory_bytes": true}}', "memory_bytes is damaged"),
        ("[1, 2, 3]", "is damaged"),
        (json.dumps(["a"] * 30), "is damaged"),
        ('["a", "b", null, {}, null, null, 7]', "is damaged"),
    ],
)
def test_a_workload_that_cannot_be_read_is_one_sentence(text, message):
    with pytest.raises(UnreadableError, match=r"^web: workload\.json") as caught:
        Workload.from_json(text, "web: workload.json")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_old_form_may_be_shorter():
    """Each release before has written the keys that it had."""
    with open(os.path.join(DATA, "0.1/workload.json"), encoding="utf-8") as file:
        values = json.load(file)
    whole = Workload.from_json(json.dumps(values))
    assert (whole.name, whole.resources.memory_bytes, whole.container.cap_add) == ("old", 64 << 20, ("NET_ADMIN",))
    assert whole.ports[0].port == 8000
    for count in range(2, len(values)):
        shorter = Workload.from_json(json.dumps(values[:count]))
        assert shorter.name == "old"
        assert shorter == Workload(*whole[:count])
    assert oldforms.workload(values, "")["ready"] == {
        "http": None,
        "tcp": None,
        "log": "here",
        "exec": None,
        "timeout_s": 20.0,
    }


@pytest.mark.parametrize("form", FORMS)
def test_an_instance_of_each_form_is_listed_and_removed(own_root, form):
    folder = put(own_root, form)
    (row,) = json.loads(ok("ps", "-a", "--format", "json"))
    assert (row["name"], row["mode"], row["status"], row["image"]) == ("kept", "container", "exited", "tiny")
    assert (row["exit_code"], row["exit_source"], row["reason"]) == (None, "unknown", None)
    document = json.loads(ok("inspect", "kept"))[0]
    assert document["workload"]["env"] == {"GREETING": "hello"}
    assert [entry["kind"] for entry in document["journal"]][:2] == ["layer", "link"]
    assert ok("logs", "kept") == ""
    assert "kept" in ok("df", "-v")
    assert ok("rm", "kept") == "kept\n"
    assert not folder.exists()


def damage_state(folder):
    (folder / "state.jsonl").write_bytes(b"\0" * 100 + b"\n")


def damage_workload(folder):
    (folder / "workload.json").write_bytes(b'{"name": "ke')


def later_workload(folder):
    values = json.loads((folder / "workload.json").read_text())
    (folder / "workload.json").write_text(json.dumps({**values, "format": 99}))


def later_key(folder):
    values = json.loads((folder / "workload.json").read_text())
    (folder / "workload.json").write_text(json.dumps({**values, "colour": "red"}))


def other_mode(folder):
    text = (folder / "state.jsonl").read_text()
    (folder / "state.jsonl").write_text(text.replace('"container"', '"no-such-mode"'))


def no_state(folder):
    (folder / "state.jsonl").unlink()


def odd_id(folder):
    text = (folder / "state.jsonl").read_text()
    (folder / "state.jsonl").write_text(text.replace('"id": "', '"id": "../'))


DAMAGES = [damage_state, damage_workload, later_workload, later_key, other_mode, no_state, odd_id]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_one_that_cannot_be_read_hides_no_other_and_can_be_removed(own_root, damage):
    ok("up", "--name", "good", write_sleeper(own_root))
    try:
        folder = put(own_root, "1", "bad")
        damage(folder)
        listed = vmctl("ps", "--format", "json")
        rows = {row["name"]: row for row in json.loads(listed.out)}
        assert (listed.code, rows["good"]["status"], rows["bad"]["status"]) == (0, "running", "unknown")
        assert rows["bad"]["reason"]
        table = vmctl("ps", "-a")
        assert "unknown" in table.out
        assert rows["bad"]["reason"] in table.err
        assert "`vmctl rm -f bad`" in table.err
        assert ok("ps", "-q").split() == ["bad", "good"]
        documents = json.loads(ok("inspect", "bad", "good"))
        assert [document["status"] for document in documents] == ["unknown", "running"]
        for verb in (("ps",), ("df",), ("df", "-v"), ("image", "ls"), ("prune", "-f"), ("image", "prune", "-f")):
            assert vmctl(*verb).code == 0, verb
        assert folder.exists()
        for verb in (("down", "bad"), ("rm", "bad"), ("stop", "bad")):
            refused(*verb)
        assert folder.exists()
        assert ok("ps", "-q").split() == ["bad", "good"]
        removed = vmctl("rm", "-f", "bad", "good")
        assert (removed.code, removed.out) == (0, "bad\ngood\n")
        assert not folder.exists()
    finally:
        vmctl("rm", "-f", "good")


def write_sleeper(root):
    path = root / "sleeper.yaml"
    path.write_text("image: tiny\ncommand: [sleep, '1000']\nnetwork: none\n")
    return str(path)


def test_removal_by_force_undoes_what_the_host_knows(own_root):
    """Of a live one: its processes, mounts and cgroup go; what only its mode can undo is named."""
    ok("up", "--name", "bad", write_sleeper(own_root))
    inst = instance.load("bad")
    os.unlink(inst.path("workload.json"))
    removed = vmctl("rm", "-f", "bad")
    assert (removed.code, removed.out) == (0, "bad\n")
    assert "these objects are left: layer " in removed.err
    assert not processes.alive(inst.state.pid, inst.state.pid_start)
    assert not os.path.exists(inst.directory)
    assert not os.path.exists(inst.run_dir)
    assert "bad" not in instance.names()


def test_a_damaged_line_of_a_journal_costs_no_other(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.record("mount", path="/a")
    with open(path, "ab") as file:
        file.write(b"\0\0\0\n[1]\n{}\n\xff\n{" + b"[" * 100_000 + b'\n{"kind": 7}\n')
    journal.record("mount", path="/b")
    assert [entry["path"] for entry in journal.entries()] == ["/a", "/b"]
    assert journal.damaged() == 6


def test_the_last_whole_state_counts(own_root):
    folder = put(own_root, "1")
    for garbage in (b'{"id": "00', b"\0\0\0\n", b'[1]\n{"'):
        with open(folder / "state.jsonl", "ab") as file:
            file.write(garbage)
        assert instance.load("kept").state.status == "running"


# A short fuzzer: readers of records raise only our errors, for any bytes.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("file", ["workload.json", "state.jsonl", "journal"])
def test_whatever_a_file_contains(own_root, form, file):
    folder = put(own_root, form)
    content = (folder / file).read_bytes()
    chance = random.Random(f"{form}/{file}")
    for _ in range(400):
        (folder / file).write_bytes(changed(content, chance))
        try:
            inst = instance.load("kept")
            inst.journal.entries()
            inst.journal.damaged()
        except VmctlError:
            continue


PIECES = (
    b"\0",
    b"\xff",
    b"null",
    b"-1",
    b"1e999",
    b"[]",
    b"{}",
    b'"',
    b"\n",
    b"9" * 400,
    b"true",
    b"[[[[",
    b'"\\ud800"',
)


def changed(content, chance):
    """Return the content with a few places cut, doubled or replaced."""
    for _ in range(chance.randint(1, 4)):
        begin, end = sorted(chance.choices(range(len(content) + 1), k=2))
        end = min(end, begin + chance.choice((0, 1, 5, 50)))
        content = content[:begin] + chance.choice((*PIECES, b"", content[begin:end] * 2)) + content[end:]
    return content
