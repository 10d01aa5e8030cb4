"""Leases: who uses an image, a kernel or a mounted layer, as the store knows it; it never reads an instance."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from support.commands import ok, refused, vmctl
from support.images_made import put

from images.store import store
from vmctl import leases, paths
from vmctl.errors import ConflictError, NotFoundError
from vmctl.instances import instance
from vmctl.journal import Journal
from vmctl.spec.workload import Workload

pytestmark = pytest.mark.usefixtures("empty_root")


@pytest.fixture
def user(tmp_path):
    """Make users of the store: no instances, which it would not read anyway."""

    def make(name, identity="00000001"):
        folder = tmp_path / f"users/{name}.{identity}"
        folder.mkdir(parents=True)
        return SimpleNamespace(name=name, id=identity, directory=str(folder), journal=Journal(str(folder / "journal")))

    return make


def listing():
    return sorted(os.listdir(os.path.join(paths.state_root(), "leases")))


def test_a_lease_is_announced_made_once_and_undone(user):
    one = user("one")
    leases.take("image:sha256:1", one)
    leases.take("image:sha256:1", one)
    assert leases.users("image:sha256:1") == ["one"]
    assert leases.users("image:sha256:2") == []
    assert {entry["kind"] for entry in one.journal.entries()} == {leases.KIND}
    for entry in one.journal.entries():
        leases.undo(entry)
    assert (leases.users("image:sha256:1"), listing()) == ([], [])


def test_the_announcement_precedes_the_lease(user):
    """Killed in between, a removal undoes what was never made."""
    one = user("one")
    one.journal.record(leases.KIND, name="image:sha256:1:one:00000001")
    leases.undo(one.journal.entries()[0])


def test_one_whose_folder_is_gone_counts_for_nothing_and_is_swept_up(user):
    one, two = user("one"), user("two")
    leases.take("kernel:a", one)
    leases.take("kernel:a", two)
    shutil.rmtree(one.directory)
    assert leases.users("kernel:a") == ["two"]
    assert len(listing()) == 1


def test_users_of_one_name_are_told_apart(user):
    first, second = user("same", "00000001"), user("same", "00000002")
    leases.add("layer:k", first)
    leases.add("layer:k", second)
    leases.remove("layer:k", first)
    assert leases.users("layer:k") == ["same"]


def test_an_image_stays_as_long_as_its_user(tree, user):
    image, one = put("web", tree), user("one")
    assert store.lease("web", one) == image
    with pytest.raises(ConflictError, match="is used by one"):
        store.remove("web")
    shutil.rmtree(one.directory)
    store.remove("web")
    assert store.ls(unnamed=True) == []


REMOVER = """
from contextlib import suppress
from images.store import store
from vmctl.errors import ConflictError, NotFoundError
print("ready", flush=True)
while True:
    with suppress(ConflictError, NotFoundError):
        store.remove("web")
        print("removed", flush=True)
"""


def test_between_search_and_lease_nobody_takes_an_image_away(tree, user):
    """Another process removes the image all the time: a lease is of a whole image, or there is no image."""
    remover = subprocess.Popen([sys.executable, "-c", REMOVER], stdout=subprocess.PIPE, text=True)
    try:
        assert remover.stdout.readline() == "ready\n"
        outcomes = {"leased": 0, "gone": 0}
        for number in range(2000):
            one = user("one", f"{number:08x}")
            image = put("web", tree)
            try:
                store.lease("web", one)
            except NotFoundError:
                outcomes["gone"] += 1
            else:
                outcomes["leased"] += 1
                assert all(os.path.exists(file) for file in store.files(image) if "tar-index" not in file)
            shutil.rmtree(one.directory)
            if number >= 50 and all(outcomes.values()):
                break
        assert all(outcomes.values()), outcomes
    finally:
        remover.kill()
        remover.communicate()


@pytest.fixture
def old(tree):
    """Make an instance as vmctl 0.1 did: it knows the digest of its image, its journal has no lease."""
    inst = instance.create(Workload("old", "web"), "container")
    inst.state.image_digest = put("web", tree).digest
    inst.state.status = "exited"
    inst.save()
    return inst


def test_an_image_is_kept_for_an_instance_that_has_taken_no_lease(old):
    assert "the image web is used by old" in refused("image", "rm", "web")
    assert [row["instances"] for row in json.loads(ok("image", "ls", "--format", "json"))] == [["old"]]
    ok("image", "rm", "-f", "web")
    assert store.find(old.state.image_digest).layers
    ok("rm", "old")
    assert (leases.all_users(), listing()) == ({}, [])
    ok("image", "prune", "-f")
    assert store.ls(unnamed=True) == []


def test_so_it_is_if_another_image_gets_its_name(old, tree, tmp_path):
    archive = str(tmp_path / "web.tar")
    (tree / "more").write_text("more")
    put("other", tree)
    ok("image", "export", "other", "-o", archive)
    ok("image", "import", "--name", "web", archive)
    assert store.find("web").digest != old.state.image_digest
    assert store.find(old.state.image_digest).layers


@pytest.mark.parametrize("left", ["instance without an image", "no such instance"])
def test_what_has_no_image_any_more_is_in_nobodys_way(old, tree, left):
    if left == "no such instance":
        shutil.rmtree(old.directory)
    else:
        store.remove("web", force=True)
    (tree / "more").write_text("more")
    put("other", tree)
    ok("image", "rm", "other")
    assert leases.all_users() == {}


def test_of_an_instance_that_cannot_be_read_the_lease_ends_too(old):
    store.lease("web", old)
    os.unlink(old.path("workload.json"))
    assert leases.users(leases.image(old.state.image_digest)) == ["old"]
    removed = vmctl("rm", "-f", "old")
    assert (removed.code, removed.out, removed.err) == (0, "old\n", "")
    assert listing() == []


@pytest.mark.parametrize("name", ["no-colons", "image:web", "::", ":::", "image:sha256:1:../..:x"])
def test_whatever_lies_in_the_folder(user, name):
    leases.take("image:sha256:1", user("one"))
    odd = os.path.join(paths.state_root(), "leases", name.replace("/", "_"))
    os.symlink("/nowhere", odd)
    assert leases.users("image:sha256:1") == ["one"]
