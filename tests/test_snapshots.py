"""Snapshots of containers and their clones: real instances, as root and as an ordinary user."""

import json
import os

import pytest
from support.commands import free_port, ok, refused, vmctl, wait_for
from support.ordinary_user import OrdinaryUser

from vmctl import leases, records
from vmctl.instances import instance
from vmctl.net import STACK
from vmctl.snapshots import cloning, record, taking
from vmctl.spec.workload import Joined, NetworkOptions, Workload

pytestmark = pytest.mark.timeout(120)

# a small database: a file that grows by records, of which the last one is never half-written
DATABASE = """
mkdir -p /data
[ -e /data/db ] || for i in 1 2 3; do echo "record $i" >>/data/db; done
[ -e /usr/share/new ] || { rm -rf /etc/group /usr/share && mkdir /usr/share && echo new >/usr/share/new; }
echo begun
exec sleep 1000
"""


def up(name, *flags, script=DATABASE):
    ok("run", "-d", "--mode", "container", "--name", name, *flags, "tiny", "--", "sh", "-c", script)
    wait_for(lambda: "begun" in ok("logs", name))


@pytest.fixture(scope="module")
def golden(own_store):
    """A snapshot of a container that goes on."""
    up("db")
    ok("exec", "db", "--", "sh", "-c", "echo more >>/data/db; chown 70:71 /data/db; ln /data/db /data/again")
    ok("snapshot", "db", "golden")
    yield "golden"
    ok("rm", "-f", "db")
    for name in record.names():
        ok("snapshot", "rm", name)


@pytest.fixture
def cloned(golden):
    """Start clones that are removed after the test."""
    names = []

    def start(*words):
        made = ok("clone", *words).split()
        names.extend(made)
        return made

    yield start
    if names:
        vmctl("rm", "-f", *names)


def test_a_clone_begins_with_the_files_and_changes_none_of_the_others(cloned):
    first, second = cloned("golden", "2")
    assert ok("exec", first, "--", "cat", "/data/db") == "record 1\nrecord 2\nrecord 3\nmore\n"
    assert ok("exec", first, "--", "stat", "-c", "%u:%g %h", "/data/db") == "70:71 2\n"
    assert ok("exec", first, "--", "ls", "/usr/share") == "new\n"
    assert vmctl("exec", first, "--", "test", "-e", "/etc/group").code == 1
    ok("exec", first, "--", "sh", "-c", "echo mine >>/data/db; rm /usr/share/new")
    assert "mine" not in ok("exec", second, "--", "cat", "/data/db") + ok("exec", "db", "--", "cat", "/data/db")
    assert ok("exec", second, "--", "ls", "/usr/share") == "new\n"
    assert ok("diff", second) == ""


def test_a_clone_is_an_instance_like_any_other(cloned):
    [name] = cloned("golden", "--name", "web")
    assert name == "web"
    ok("exec", name, "--", "sh", "-c", "echo kept >/data/own")
    ok("restart", "-t", "0", name)
    assert ok("exec", name, "--", "cat", "/data/own") == "kept\n"
    assert ok("exec", name, "--", "cat", "/data/again").endswith("more\n")
    ok("stop", "-t", "0", name)
    assert ok("cp", f"{name}:/data/own", "-").rstrip("\0").count("kept") == 1
    seen = json.loads(ok("inspect", name))[0]
    assert seen["snapshot"]["name"] == "golden"
    assert seen["snapshot"]["took_s"] > 0
    assert seen["snapshot"]["disk_bytes"] > 0


def test_a_clone_can_be_committed_and_be_a_snapshot_itself(cloned):
    [first] = cloned("golden")
    ok("exec", first, "--", "sh", "-c", "echo second >>/data/db; rm /data/again")
    ok("snapshot", first, "second")
    ok("commit", first, "of-clone")
    ok("rm", "-f", first)
    [other] = cloned("second")
    expected = "record 1\nrecord 2\nrecord 3\nmore\nsecond\n"
    assert ok("exec", other, "--", "cat", "/data/db") == expected
    assert vmctl("exec", other, "--", "test", "-e", "/data/again").code == 1
    assert ok("run", "--mode", "container", "of-clone", "--", "cat", "/data/db") == expected
    ok("rm", "-f", other)
    ok("snapshot", "rm", "second")
    ok("image", "rm", "of-clone")


def test_a_snapshot_in_use_is_not_removed(cloned):
    [first] = cloned("golden")
    error = refused("snapshot", "rm", "golden")
    assert f"the snapshot golden is used by {first}" in error
    ok("stop", "-t", "0", first)
    assert first in refused("snapshot", "rm", "golden")
    assert record.find("golden").users() == [first]


def test_clones_of_an_instance_that_runs(cloned):
    before = record.names()
    names = cloned("db", "2")
    assert names == ["db-1", "db-2"] or names == ["db-2", "db-1"]
    [temporary] = set(record.names()) - set(before)
    assert "record 3" in ok("exec", "db-2", "--", "cat", "/data/db")
    ok("rm", "-f", "db-1")
    assert temporary in record.names()
    ok("rm", "-f", "db-2")
    assert record.names() == before
    assert ok("exec", "db", "--", "echo", "alive") == "alive\n"


def test_two_clones_with_one_name(cloned):
    cloned("golden", "2", "--name", "pair")
    error = refused("clone", "golden", "3", "--name", "pair")
    assert "the name pair-1 is taken" in error
    assert "pair-3" not in ok("ps", "-aq")


def test_a_stopped_instance_and_what_is_left_out(own_store):
    up("still", "-v", "/data", "--tmpfs", "/scratch", "-v", "shared:/srv")
    ok("stop", "-t", "0", "still")
    said = vmctl("snapshot", "still", "rest").err
    assert "paused" not in said
    assert "/data: each clone has a new one" in said
    assert "shared at /srv: it is shared" in said
    assert "/scratch" in said
    ok("rm", "-f", "still")
    ok("snapshot", "rm", "rest")
    ok("volume", "rm", "shared")


def test_the_image_of_a_snapshot_stays(golden):
    image = record.find("golden").image_digest
    assert "snapshot golden" in leases.users(leases.image(image))
    assert "`vmctl snapshot rm golden`" in refused("image", "rm", "tiny") or "`vmctl rm db`" in refused(
        "image", "rm", "tiny"
    )


def test_ports_of_several_clones(own_store):
    port = free_port()
    up("web", "-p", f"127.0.0.1:{port}:80", script="echo begun; exec httpd -f -p 80")
    ok("snapshot", "web", "site")
    error = refused("clone", "site", "2")
    assert f"cannot all have the port {port}" in error
    assert "--free-ports" in error
    names = ok("clone", "site", "2", "--free-ports").split()
    ports = {ok("port", name) for name in names}
    assert len(ports) == 2
    error = refused("clone", "site")
    assert str(port) in error
    assert "--free-ports" in error  # the first instance still has it
    ok("rm", "-f", "web")
    [one] = ok("clone", "site").split()
    assert str(port) in ok("port", one)
    ok("rm", "-f", one, *names)
    ok("snapshot", "rm", "site")


def test_more_clones_than_the_memory_holds_are_refused_before_the_first(golden):
    path = os.path.join(record.folder("golden"), record.RECORD)
    with open(path, encoding="utf-8") as file:
        kept = file.read()
    values = json.loads(kept)
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**values, "clone_memory_bytes": 1 << 50}, file)
        assert "of memory" in refused("clone", "golden", "2", "--name", "huge")
        assert "huge" not in ok("ps", "-aq")
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(kept)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda values: values | {"format": 2}, "written by a later vmctl"),
        (lambda values: values | {"id": "../../x"}, "is not an id"),
        (lambda values: values | {"mode": "jail"}, "there is no mode jail"),
        (lambda values: values | {"image_digest": "sha256:" + "0" * 64}, "is gone"),
        (lambda values: values | {"facts": {"layers": ["../../etc/passwd"]}}, "is damaged"),
        (lambda values: values | {"facts": {"layers": ["0" * 64]}}, "is missing"),
        (lambda values: values | {"workload": {"name": 1}}, "is damaged"),
        (lambda values: {key: part for key, part in values.items() if key != "workload"}, "workload is missing"),
        (lambda values: "", "expected an object"),
    ],
    ids="later id mode image path layer workload key text".split(),
)
def test_a_damaged_record_is_refused_with_a_reason(golden, change, expected):
    path = os.path.join(record.folder("golden"), record.RECORD)
    with open(path, encoding="utf-8") as file:
        kept = file.read()
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(change(json.loads(kept)), file)
        before = ok("ps", "-aq")
        assert expected in refused("clone", "golden")
        assert ok("ps", "-aq") == before
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(kept)


def test_a_killed_command_leaves_nothing_that_stays(golden):
    os.mkdir(record.folder("killed"), 0o700)
    assert "killed" not in ok("snapshot", "ls", "-q")
    assert "there is no snapshot killed" in refused("snapshot", "inspect", "killed")
    ok("snapshot", "db", "killed")
    ok("snapshot", "rm", "killed")
    assert not os.path.exists(record.folder("killed"))


def test_leases_of_a_killed_command_end_with_its_folder(golden):
    os.mkdir(record.folder("killed"), 0o700)
    holder = record.Holder("killed", "0123abcd")
    leases.take(leases.image("sha256:" + "0" * 64), holder)
    assert record.unfinished() == [record.folder("killed")]
    record.remove_unfinished()
    assert not [name for name in os.listdir(leases.folder()) if "killed" in name]


def test_a_temporary_snapshot_without_clones_is_pruned(golden):
    taken = taking.take(instance.load("db"), "passing", temporary=True)
    assert "passing" in ok("snapshot", "ls", "-q")
    removed = json.loads(ok("prune", "-f", "--format", "json"))
    assert [row["name"] for row in removed if row["kind"] == "snapshot"] == [taken.name]
    assert "golden" in record.names()


def test_the_workload_of_a_clone_is_part_of_no_stack_and_has_no_fixed_address(golden):
    networks = NetworkOptions((Joined("front", ("web",), "10.77.1.5"),))
    work = Workload("web", "tiny", labels={STACK: "shop", "tier": "front"}, network=networks)
    kept = record.find("golden")._replace(workload=records.plain(work))
    clone = cloning.of(kept, "web-1", ())
    assert (clone.name, clone.labels) == ("web-1", {"tier": "front"})
    assert clone.network == NetworkOptions((Joined("front", ("web",)),))


def test_the_same_as_a_plain_process(golden):
    ok("run", "-d", "--mode", "host", "--name", "plain", "tiny", "--", "sh", "-c", DATABASE)
    wait_for(lambda: "begun" in ok("logs", "plain"))
    ok("snapshot", "plain", "of-host")
    ok("rm", "-f", "plain")
    [name] = ok("clone", "of-host").split()
    assert ok("exec", name, "--", "cat", "/data/db") == "record 1\nrecord 2\nrecord 3\n"
    ok("rm", "-f", name)
    ok("snapshot", "rm", "of-host")


def test_the_same_as_an_ordinary_user(shared_user):
    user = shared_user
    user.ok("run", "-d", "--mode", "container", "--name", "db", "tiny", "--", "sh", "-c", DATABASE)
    wait_for(lambda: "begun" in user.ok("logs", "db"))
    user.ok("exec", "db", "--", "chown", "70:71", "/data/db")
    user.ok("snapshot", "db", "his")
    names = user.ok("clone", "his", "2").split()
    assert user.ok("exec", names[0], "--", "cat", "/data/db") == "record 1\nrecord 2\nrecord 3\n"
    assert user.ok("exec", names[0], "--", "stat", "-c", "%u:%g", "/data/db") == "70:71\n"
    assert user.ok("exec", names[1], "--", "ls", "/usr/share") == "new\n"
    user.ok("exec", names[0], "--", "sh", "-c", "echo mine >>/data/db")
    assert "mine" not in user.ok("exec", names[1], "--", "cat", "/data/db")
    assert "his" not in record.names()
    user.ok("rm", "-f", "db", *names)
    user.ok("prune", "--force", "--all")
    assert user.ok("snapshot", "ls", "-q") == "his\n"
    user.ok("snapshot", "rm", "his")


@pytest.fixture
def shared_user():
    with OrdinaryUser() as user:
        user.give_image()
        yield user
