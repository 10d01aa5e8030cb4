"""Ranges of user ids of the host: nobody else can take, read or block them."""

import os

import pytest
from support.commands import ok

from images.layer import mounts
from vmctl import ids
from vmctl.errors import UnavailableError

pytestmark = pytest.mark.timeout(600)


@pytest.mark.attack("another local user makes or fills the folder of the ranges of ids", mode="container", who="root")
def test_folder_of_another_user(tmp_path, monkeypatch):
    own_folder = tmp_path / "ids"
    monkeypatch.setattr(ids, "FOLDER", str(own_folder))
    own_folder.mkdir(mode=0o700)
    os.chown(own_folder, 1234, 1234)
    with pytest.raises(UnavailableError, match="others can write"):
        ids.owners()
    own_folder.rmdir()
    own_folder.mkdir()
    own_folder.chmod(0o777)
    with pytest.raises(UnavailableError, match="others can write"):
        ids.owners()


@pytest.mark.attack(
    "an instance, of this or another state root, damages its state to stop all others", mode="container", who="root"
)
def test_damaged_state_of_a_neighbour(own_root, tmp_path, monkeypatch):
    roots = [own_root, tmp_path / "other"]
    (roots[1] / "lib").mkdir(parents=True)
    (roots[1] / "lib" / "images").symlink_to((own_root / "lib" / "images").resolve())
    work = tmp_path / "box.yaml"
    work.write_text("image: tiny\nnetwork: none\ncommand: [sleep, '1000']\ncontainer: {userns: auto}\n")
    for root in roots:
        monkeypatch.setenv("VMCTL_ROOT", str(root))
        ok("up", str(work))
        (root / "lib/instances/box/state.jsonl").write_bytes(b"\0" * 100)
    mine = [first for first, owner in ids.owners().items() if owner.startswith(str(tmp_path))]
    assert len(mine) == 2
    for root in roots:
        monkeypatch.setenv("VMCTL_ROOT", str(root))
        ok("run", "--userns", "auto", "--network", "none", "tiny", "--", "true")
        ok("rm", "-f", "box")
        for layer in mounts.unused():  # whose they are was in the damaged file
            mounts.remove_unused(layer)
    assert not [owner for owner in ids.owners().values() if owner.startswith(str(tmp_path))]
