import json
import os
import tempfile

import pytest
from support.commands import refused

from bench import folder, importing
from vmctl.errors import VmctlError


def test_an_import_is_compared_with_tar_and_mkfs_erofs(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = []
    done = importing.measure(1, 1, told.append, image_bytes=8_000_000)
    assert [len(done.of(kind)) for kind in ("by hand", "import", "import again")] == [1, 1, 1]
    assert done.unpacked_bytes >= 8_000_000 > done.packed_bytes > 100_000
    assert [row[0] for row in importing.rows(done)] == ["by hand", "import", "import again"]
    assert all(len(row) == len(importing.COLUMNS) for row in importing.rows(done))
    assert importing.document(done)["ratio"] == done.ratio() > 0
    assert f"an image of {done.files} files" in importing.notes(done)[0]
    assert "round 1 of 1: import" in told
    assert os.listdir(tmp_path) == []
    importing.write(done, str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["images.json", "images.md"]
    told = json.loads((tmp_path / "images.json").read_text())
    assert told == json.loads(json.dumps(importing.document(done)))
    assert [one["kind"] for one in told["samples"]] == [one.kind for one in done.samples]
    assert (told["format"], told["runs"], told["seed"]) == (importing.FORMAT, 1, 1)
    lines = (tmp_path / "images.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("|")][2:] == [
        "| by hand",
        "| import",
        "| import again",
    ]
    assert f"- {importing.notes(done)[1]}" in lines


def test_a_file_that_cannot_be_written_is_named_and_nothing_half_made_stays(tmp_path):
    (tmp_path / "images.md").mkdir()
    with pytest.raises(VmctlError, match=f"cannot write {tmp_path}/images.md: Is a directory"):
        folder.write(str(tmp_path), "images", {"samples": [1.5]}, ["# title"])
    assert sorted(os.listdir(tmp_path)) == ["images.json", "images.md"]
    assert json.loads((tmp_path / "images.json").read_text()) == {"samples": [1.5]}


@pytest.mark.parametrize("action", ["images", "peers"])
def test_where_nothing_can_be_written_nothing_is_measured(tmp_path, action):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for place, why in ((str(taken), "a file of that name exists"), ("/proc/nowhere", "No such file or directory")):
        said = refused("bench", action, "--out", place)
        assert f"cannot write results to {place}: {why}" in said
        assert "--out DIR" in said
    assert "--runs has to be between 1 and 10,000, not 0" in refused("bench", action, "--runs", "0")
    assert taken.read_text() == "mine"
