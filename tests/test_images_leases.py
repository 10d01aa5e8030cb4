"""Leases: who uses an image, a kernel or a mounted layer, as the store knows it; it never reads an instance."""

import os
import shutil
from types import SimpleNamespace

import pytest
from support.images_made import put

from images.store import leases, store
from vmctl import paths
from vmctl.errors import ConflictError
from vmctl.journal import Journal

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


def test_users_without_a_lease_are_heeded_too(tree):
    image = put("web", tree)
    for others in ({"web": ["old"]}, {image.digest: ["old"]}):
        with pytest.raises(ConflictError, match="is used by old"):
            store.remove("web", others=others)
    store.remove("web", others={"another": ["old"]})


@pytest.mark.parametrize("name", ["no-colons", "image:web", "::", ":::", "image:sha256:1:../..:x"])
def test_whatever_lies_in_the_folder(user, name):
    leases.take("image:sha256:1", user("one"))
    odd = os.path.join(paths.state_root(), "leases", name.replace("/", "_"))
    os.symlink("/nowhere", odd)
    assert leases.users("image:sha256:1") == ["one"]
