"""Named volumes: the store, the verbs, and what instances find in them."""

import json
import os
import stat
import threading

import pytest
from support.commands import ok, refused, vmctl
from support.images_made import add
from support.ordinary_user import OrdinaryUser

from images.layer import volumes
from images.store import store as images
from vmctl import leases, paths
from vmctl.errors import NotFoundError, SpecError, StateError
from vmctl.journal import Journal
from vmctl.records import UnreadableError
from vmctl.spec import mountflag
from vmctl.spec.workload import Volume, Workload
from vmctl.volumes import places, store

pytestmark = pytest.mark.timeout(600)
RUN = ("run", "--network", "none")


class User:
    """A user of leases."""

    def __init__(self, folder, name="box"):
        self.name, self.id, self.directory = name, "0" * 8, str(folder / name)
        os.makedirs(self.directory)
        self.journal = Journal(os.path.join(self.directory, "journal"))


# The store


def test_a_volume_is_made_found_and_removed(empty_root):
    assert store.names() == []
    made = store.create("data", {"a": "1"})
    assert store.create("data", {"a": "2"}) == store.find("data") == made  # repeatable, as in docker
    assert stat.S_IMODE(os.stat(made.data).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(paths.volumes_root()).st_mode) == 0o700
    store.remove("data")
    assert os.listdir(paths.volumes_root()) == []
    with pytest.raises(NotFoundError):
        store.remove("data")
    store.remove("data", force=True)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", ".a", "a" * 129, "ä", "a\n", "a:b"])
def test_names_that_lead_elsewhere_are_refused(empty_root, name):
    with pytest.raises(SpecError):
        store.create(name)
    with pytest.raises(NotFoundError):
        store.find(name)
    with pytest.raises(NotFoundError):
        store.remove(name)


def test_a_volume_in_use_is_kept(empty_root, tmp_path):
    user = User(tmp_path)
    store.take("data", user)
    store.take("data", user)
    assert store.users("data") == ["box"]
    for force in (False, True):
        with pytest.raises(StateError, match="used by box"):
            store.remove("data", force=force)
    for entry in user.journal.entries():
        leases.undo(entry)
    store.remove("data")


def test_many_commands_make_one_volume(empty_root, tmp_path):
    users = [User(tmp_path, f"box{number}") for number in range(8)]
    threads = [threading.Thread(target=store.take, args=("data", user)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.users("data") == sorted(user.name for user in users)
    assert os.listdir(paths.volumes_root()) == ["data"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"created_s": "x"}', '{"labels": {"a": 1}, "created_s": 1}', None])
def test_a_damaged_record_keeps_the_files_until_it_is_removed_by_force(empty_root, damage, capsys):
    made = store.create("data")
    store.create("whole")
    record = os.path.join(store.folder("data"), store.RECORD)
    os.unlink(record)
    if damage is not None:
        with open(record, "w", encoding="utf-8") as file:
            file.write(damage)
    for action in (store.find, store.remove, store.create):
        with pytest.raises(UnreadableError) as raised:
            action("data")
        assert made.data in raised.value.hint
    listed = vmctl("volume", "ls", "-q")
    assert (listed.code, listed.out) == (0, "whole\n")
    assert "volume rm -f data" in listed.err
    store.remove("data", force=True)


def test_what_killed_commands_leave_is_removed(empty_root):
    store.create("data")
    os.makedirs(os.path.join(paths.volumes_root(), ".data.999999999", "data"))
    store.create("other")
    assert sorted(os.listdir(paths.volumes_root())) == ["data", "other"]


def test_places_of_volumes(empty_root):
    work = Workload("w", "i", volumes=(Volume("data", "/a/b"), Volume("/srv/./x", "/a"), Volume("", "/a/b/c")))
    found = places.located(work, "/instance")
    assert [volume.source for volume in found] == ["/srv/x", store.data("data"), "/instance/volumes/2/data"]
    assert places.names(work) == ["data"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("type=bind,source=/srv,target=/a,readonly", "/srv:/a:ro"),
        ("type=bind,src=data,dst=/a,ro=true", "./data:/a:ro"),
        ("source=data,destination=/a,readonly=false,volume-nocopy", "data:/a:nocopy"),
        ("type=volume,target=/a", "/a"),
        ("type=tmpfs,target=/a,tmpfs-size=1M,tmpfs-mode=1770", "/a:size=1M,mode=1770"),
        ("type=bind,target=/a", None),
        ("type=bind,source=/a", None),
        ("type=npipe,source=/a,target=/a", None),
        ("type=bind,source=/a,target=/a,bind-propagation=rshared", None),
        ("type=volume,source=/a,target=/b", None),
        ("type=volume,target=/b,readonly", None),
        ("type=bind,source=/a,target=/a,readonly=maybe", None),
    ],
)
def test_the_long_form_of_docker(text, same):
    if same is None:
        with pytest.raises(SpecError, match="--mount: "):
            mountflag.parse([text])
    else:
        assert [*mountflag.parse([text]).volumes, *mountflag.parse([text]).tmpfs] == [same]


# The content at the beginning


@pytest.fixture
def image(own_store, tmp_path):
    """An image with a folder /srv/app that two layers fill, and links."""
    low, high = tmp_path / "low", tmp_path / "high"
    (low / "srv/app/sub").mkdir(parents=True)
    (high / "srv/app").mkdir(parents=True)
    (low / "srv/app").chmod(0o2770)
    os.chown(low / "srv/app", 70, 71)
    (high / "srv/app").chmod(0o2770)
    os.chown(high / "srv/app", 70, 71)
    (low / "srv/app/kept").write_text("low")
    (low / "srv/app/changed").write_text("low")
    (high / "srv/app/changed").write_text("high")
    (low / "srv/app/sub/setuid").write_text("x" * 70_000)
    os.chown(low / "srv/app/sub/setuid", 5, 6)
    (low / "srv/app/sub/setuid").chmod(0o4711)
    os.symlink("/etc/shadow", low / "srv/app/link")
    os.mkfifo(low / "srv/app/fifo")
    os.mknod(low / "srv/app/disk", 0o060666, os.makedev(254, 0))
    os.symlink("srv/app", low / "linked")
    os.symlink("../../../../../../../etc", low / "out")
    return add("filled", images.find("tiny"), low, high)


def content(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_an_empty_volume_begins_with_the_folder_of_the_image(image):
    made = store.create("begins")
    for _ in range(2):  # the second time it is not empty
        volumes.fill(made.data, image.stack, "/linked")
    assert sorted(os.listdir(made.data)) == ["changed", "fifo", "kept", "link", "sub"]  # no device
    assert os.listdir(store.folder("begins")) != []
    top, inner = os.stat(made.data), os.stat(f"{made.data}/sub/setuid")
    assert (top.st_uid, top.st_gid, stat.S_IMODE(top.st_mode)) == (70, 71, 0o2770)
    assert (inner.st_uid, inner.st_gid, stat.S_IMODE(inner.st_mode), inner.st_size) == (5, 6, 0o4711, 70_000)
    assert content(f"{made.data}/changed") == "high"
    assert os.readlink(f"{made.data}/link") == "/etc/shadow"
    store.remove("begins")


def test_what_leads_nowhere_leaves_a_volume_empty(image):
    made = store.create("empty")
    for path in ("/nothing", "/srv/app/kept", "/srv/app/link"):
        volumes.fill(made.data, image.stack, path)
    assert os.listdir(made.data) == []
    volumes.fill(made.data, image.stack, "/out")  # the image's /etc, not the host's
    assert "passwd" in os.listdir(made.data)
    assert content(f"{made.data}/passwd") != content("/etc/passwd")
    store.remove("empty")


def test_a_filling_that_was_killed_is_completed_by_the_next(image):
    """At each moment: while copying (`new.part`), and while moving (`new`)."""
    made = store.create("killed")
    os.makedirs(os.path.join(store.folder("killed"), "new.part", "half"))
    volumes.fill(made.data, image.stack, "/srv/app")
    assert sorted(os.listdir(made.data)) == ["changed", "fifo", "kept", "link", "sub"]
    os.mkdir(os.path.join(store.folder("killed"), "new"))
    os.rename(f"{made.data}/kept", os.path.join(store.folder("killed"), "new", "kept"))
    volumes.fill(made.data, image.stack, "/srv/app")
    assert os.path.exists(f"{made.data}/kept")
    assert sorted(os.listdir(store.folder("killed"))) == ["data", store.RECORD]
    store.remove("killed")


# The verbs


def test_the_verbs(own_root):
    name = ok("volume", "create").strip()
    assert len(name) == 16
    assert ok("volume", "create", "-l", "project=shop", "-l", "bare", "data") == "data\n"
    assert ok("volume", "ls", "-q").split() == sorted([name, "data"])
    for words in (("label=project",), ("label=project=shop", "name=at"), ("label=bare",)):
        flags = [part for word in words for part in ("--filter", word)]
        assert ok("volume", "ls", "-q", *flags) == "data\n"
    assert "data" not in ok("volume", "ls", "-q", "--filter", "label=project=other")
    assert ok("volume", "ls").split()[:4] == ["NAME", "SIZE", "AGE", "INSTANCES"]
    document = json.loads(ok("volume", "inspect", "data"))[0]
    assert document["labels"] == {"project": "shop", "bare": ""}
    assert document["path"] == store.data("data")
    assert ok("volume", "rm", name) == f"{name}\n"
    assert "there is no volume" in refused("volume", "rm", name)
    assert "kept" in refused("volume", "prune", "-f")
    assert "freed" in vmctl("volume", "prune", "--all", "--force").err
    assert store.names() == []


def test_a_named_volume_outlives_its_instances(own_root):
    write = ("-v", "data:/data", "tiny", "--", "sh", "-c", "echo kept > /data/file; stat -c %u /data/file")
    assert ok(*RUN, *write) == "0\n"
    assert ok(*RUN, "-v", "data:/data:ro", "tiny", "--", "cat", "/data/file") == "kept\n"
    assert "Read-only" in vmctl(*RUN, "-v", "data:/data:ro", "tiny", "--", "touch", "/data/no").err
    assert os.stat(store.data("data") + "/file").st_uid == 0
    ok("run", "-d", "--name", "box", "-v", "data:/data", "-v", "/own", "tiny", "--", "sleep", "1000")
    assert json.loads(ok("volume", "inspect", "data"))[0]["instances"] == ["box"]
    assert "is used by box" in refused("volume", "rm", "-f", "data")
    assert vmctl("volume", "prune", "-a", "-f").out.splitlines() == ["NAME  SIZE"]
    ok("exec", "box", "--", "sh", "-c", "echo mine > /own/file")
    ok("stop", "-t", "0", "box")
    ok("start", "box")
    assert ok("exec", "box", "--", "cat", "/own/file", "/data/file") == "mine\nkept\n"
    ok("run", "-d", "--name", "other", "-v", "data:/data", "tiny", "--", "sleep", "1000")
    removed = vmctl("rm", "-f", "-v", "box")
    assert (removed.code, removed.out) == (0, "box\n")
    assert "used by other, and kept" in removed.err
    ok("down", "-v", "-t", "0", "other")
    assert store.names() == []


@pytest.mark.parametrize("mode", ["container", "host"])
def test_a_workload_finds_what_the_image_has(image, mode):
    words = ("run", "--mode", mode, "-v", "found:/srv/app", "-v", "bare:/srv/app/sub:nocopy")
    script = "cd /srv/app; cat kept changed; ls; ls sub; stat -c '%u:%g:%a' . sub; echo new >kept"
    assert ok(*words, "filled", "--", "sh", "-c", script).split() == [
        *("lowhighchanged", "fifo", "kept", "link", "sub"),
        *("70:71:2770", "0:0:755"),
    ]
    assert ok("run", "--mode", mode, "-v", "found:/x", "filled", "--", "cat", "/x/kept") == "new\n"
    ok("volume", "rm", "found", "bare")


def test_an_ordinary_user_has_other_volumes():
    with OrdinaryUser() as user:
        user.give_image()
        assert user.vmctl("volume", "ls", "-q").out == ""
        script = "echo of-user > /data/file; chown 7 /data/file"
        user.ok(*RUN, "-v", "data:/data", "tiny", "--", "sh", "-c", script)
        assert user.ok(*RUN, "-v", "data:/data", "tiny", "--", "stat", "-c", "%u", "/data/file") == "7\n"
        assert os.stat(f"{user.state}/volumes").st_uid == user.uid
        assert os.stat(f"{user.state}/volumes/data/data/file").st_uid == user.first_id + 6
        assert user.ok("volume", "rm", "data") == "data\n"
