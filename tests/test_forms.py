"""What lies on disk: keys by name with a format number, digests that a new key does not change, the form before."""

import json
import os
import random

import pytest
from support.commands import ok
from support.kept_instances import DATA, FORMS, changed, put

from vmctl import oldforms, records
from vmctl.errors import VmctlError
from vmctl.instances import instance
from vmctl.journal import Journal
from vmctl.named import NamedTuple
from vmctl.records import UnreadableError
from vmctl.spec import workloadfile
from vmctl.spec.workload import Bytes, Ready, Workload

HERE = os.path.dirname(__file__)
WORKLOADS = os.path.join(HERE, "..", "configs", "workloads")

# A digest identifies a workload in the results of benchmarks: none of these may change when keys are added.
PINNED = {
    "postgres.yaml": "sha256:aa5f89df710443f6f5cb3ca75e3916889c9525f6ad7f7c583c65d10227424fc6",
    "web.yaml": "sha256:d81a2a39acc9685a8552c57e1118a60550769e2d9d8f97858b4d38777dad97a6",
}


def test_the_digests_of_the_shipped_workloads():
    found = {name: workloadfile.load(os.path.join(WORKLOADS, name)).digest() for name in sorted(os.listdir(WORKLOADS))}
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
        ('{"name": "a", "image": "b", "network": 7}', "network is damaged"),
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
        kept = oldforms.KEYS["workload"].split()[:count]
        assert shorter == Workload(**{key: getattr(whole, key) for key in kept})
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


@pytest.mark.parametrize("garbage", [b'{"id": "00', b"\0" * 4096, b"x"])
def test_a_line_cut_by_a_crash_does_not_take_the_next_one_along(own_root, garbage):
    folder = put(own_root, "1")
    for name in ("state.jsonl", "journal"):
        with open(folder / name, "ab") as file:
            file.write(garbage)
    inst = instance.load("kept")
    before = inst.journal.entries()
    inst.state.status = "exited"
    inst.save()
    inst.journal.record("mount", path="/new")
    again = instance.load("kept")
    assert again.state.status == "exited"
    assert again.journal.entries() == [*before, {"kind": "mount", "path": "/new"}]
    assert again.journal.damaged() == 1


def test_only_the_end_of_a_long_state_is_read(own_root):
    folder = put(own_root, "1")
    last = (folder / "state.jsonl").read_bytes().splitlines()[-1]
    with open(folder / "state.jsonl", "wb") as file:
        file.truncate(1 << 40)  # sparse: reading it all would take minutes
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + last + b"\n")
    assert instance.load("kept").state.status == "running"


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "9" * 400, str(1 << 63)])
def test_numbers_that_nothing_could_compute_with(text):
    for key, value in (("cpus", text), ("memory_bytes", text), ("pids", text)):
        with pytest.raises(UnreadableError, match="a number that is too large"):
            Workload.from_json(f'{{"name": "a", "image": "b", "resources": {{"{key}": {value}}}}}')


def test_a_nested_value_at_any_depth(own_root):
    """Python's limit of recursion is hit in the parser, or behind it, where a message is made or an entry compared."""
    folder = put(own_root, "1")
    state, journal = ((folder / name).read_bytes() for name in ("state.jsonl", "journal"))
    for depth in (*range(1, 300, 50), *range(300, 1100, 5)):
        deep = b"[" * depth + b"]" * depth
        (folder / "state.jsonl").write_bytes(state + state.splitlines()[-1].replace(b"{}", b'{"a": %b}' % deep) + b"\n")
        (folder / "journal").write_bytes(journal + b'{"kind": "x", "a": %b}\n{"struck": %b}\n' % (deep, deep))
        try:
            inst = instance.load("kept")
            inst.journal.entries()
            inst.save()
        except VmctlError:
            continue
        try:
            Workload.from_json(b'{"name": "a", "image": "b", "env": %b}' % deep)
        except UnreadableError:
            continue


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
            Workload.from_json(inst.work.to_json())
        except VmctlError:
            continue
