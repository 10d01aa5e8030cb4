"""Ranges of user ids: unique on the host, also if the state of a neighbour is damaged."""

import os
import shutil
import subprocess
import sys

import pytest

from vmctl import ids
from vmctl.errors import ConflictError
from vmctl.instances.folder import Home
from vmctl.instances.undo import UNDO
from vmctl.journal import Journal


class Owner:
    """An owner of a range, with its folder and journal."""

    def __init__(self, folder, identity="00000000"):
        folder.mkdir(parents=True)
        self.name, self.id, self.directory = folder.name, identity, str(folder)
        self.journal = Journal(str(folder / "journal"))


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder of leases that only this test uses."""
    monkeypatch.setattr(ids, "FOLDER", str(tmp_path / "ids"))
    return tmp_path / "ids"


def test_a_range_is_recorded_before_it_is_leased_and_given_back(own_folder, tmp_path):
    owner = Owner(tmp_path / "one")
    first = ids.take(owner)
    assert (first - ids.FIRST) % ids.COUNT == 0
    assert ids.FIRST <= first < ids.END
    assert owner.journal.entries() == [{"kind": "ids", "first": first}]
    assert ids.owners() == {first: owner.directory}
    assert own_folder.stat().st_mode & 0o777 == 0o700
    home = Home("one", owner.id)
    home.directory = owner.directory
    UNDO["ids"](home, owner.journal.entries()[0])
    assert ids.owners() == {}


def test_owners_whose_ids_are_the_same_get_different_ranges(own_folder, tmp_path):
    """Two state roots can have an instance of the same name and id."""
    found = [ids.take(Owner(tmp_path / root / "box")) for root in ("a", "b", "c")]
    assert len(set(found)) == 3


def test_a_range_of_a_removed_owner_is_free_again(own_folder, tmp_path):
    gone = Owner(tmp_path / "gone")
    first = ids.take(gone)
    shutil.rmtree(gone.directory)
    assert ids.take(Owner(tmp_path / "next")) == first


def test_only_the_owner_gives_a_range_back(own_folder, tmp_path):
    """An instance whose folder was away for a while does not take the range from its present owner."""
    first = ids.take(Owner(tmp_path / "owner"))
    ids.give_back(str(tmp_path / "other"), {"first": first})
    assert ids.owners() == {first: str(tmp_path / "owner")}
    with pytest.raises(ConflictError, match=str(first)):
        ids.take(Owner(tmp_path / "other"), first)


def test_a_stopped_owner_gets_its_range_back(own_folder, tmp_path):
    owner = Owner(tmp_path / "owner")
    first = ids.take(owner)
    assert ids.take(owner, first) == first
    ids.give_back(owner.directory, {"first": first})
    assert ids.take(owner, first) == first  # as long as it is free


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("x"), os.mkfifo])
def test_what_is_not_a_lease_is_left_alone(own_folder, tmp_path, make):
    own_folder.mkdir(mode=0o700)
    make(own_folder / str(ids.FIRST))
    assert ids.take(Owner(tmp_path / "one")) == ids.FIRST + ids.COUNT
    assert (own_folder / str(ids.FIRST)).exists()


@pytest.mark.parametrize("value", ["1879048192", None, 1.5, [1], True])
def test_a_damaged_entry_is_refused(own_folder, value):
    with pytest.raises((ValueError, TypeError)):
        ids.give_back("/nowhere", {"first": value})


_TAKE = """
import sys
from vmctl import ids
from vmctl.journal import Journal
ids.FOLDER = sys.argv[1]
class Owner: name, id, directory, journal = "x", "00000000", sys.argv[2], Journal(sys.argv[2] + "/journal")
print(ids.take(Owner()))
"""


def test_commands_at_the_same_time_get_different_ranges(own_folder, tmp_path):
    """All of them find the same stale lease, which only one may take over."""
    gone = Owner(tmp_path / "gone")
    ids.take(gone)
    shutil.rmtree(gone.directory)
    folders = [Owner(tmp_path / f"{number}").directory for number in range(8)]
    command = [sys.executable, "-c", _TAKE, str(own_folder)]
    running = [subprocess.Popen([*command, folder], stdout=subprocess.PIPE, text=True) for folder in folders]
    found = [process.communicate()[0].strip() for process in running]
    assert len(set(found)) == 8
    assert all(found)
