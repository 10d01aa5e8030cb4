"""Clones compared with starts: really measured, with a small crowd and little written."""

import json

import pytest
from support.commands import refused

from bench import clones
from vmctl import survey
from vmctl.snapshots import record


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(clones, "CROWD", 1)
    monkeypatch.setattr(clones, "WRITTEN_MB", 4)


def test_containers_are_measured_and_nothing_is_left(own_root, small, tmp_path):
    done = clones.measure(1, 1, lambda text: None, ["container"])
    assert done.failures == {}
    assert done.ways() == [
        "container, clone",
        "container, clone, 4 MB written before",
        "container, clone, number 2",
        "container, cold",
    ]
    assert all(0 < sample.page_s < 60 and 0 < sample.first_s < 60 for sample in done.samples)
    assert all(sample.memory_bytes > 0 and sample.disk_bytes < 1 << 20 for sample in done.samples)
    assert survey.survey() == []
    assert record.names() == []
    clones.write(done, str(tmp_path))
    written = json.loads((tmp_path / "clones.json").read_text())
    assert [one["way"] for one in written["samples"]] == [one.way for one in done.samples]
    assert written["format"] == clones.FORMAT
    assert "| container, cold | 1 |" in (tmp_path / "clones.md").read_text()
    assert any("a clone answers after" in note for note in clones.notes(done))


@pytest.mark.long
def test_guests_are_measured_warm_too(guest_root, small):
    done = clones.measure(1, 1, lambda text: None, ["vm"])
    assert done.failures == {}
    assert len(done.ways()) == 6
    by_way = {way: done.of(way)[0] for way in done.ways()}
    assert by_way["vm, clone"].first_s < by_way["vm, cold"].first_s
    assert by_way["vm, clone"].memory_bytes < by_way["vm, cold"].memory_bytes


def test_a_mode_that_cannot_be_measured_is_named(own_root):
    (own_root / "lib/images").unlink()
    done = clones.measure(1, 1, lambda text: None, ["container"])
    assert (done.samples, clones.rows(done)) == ((), [])
    assert "there is no image tiny" in done.failures["container"]


def test_wrong_flags_are_refused():
    assert "docker" in refused("bench", "clones", "--modes", "docker")
    assert "--runs has to be between 1 and 10,000, not 0" in refused("bench", "clones", "--runs", "0")
