"""The journal and other files of lines: they contain complete lines, even if the writer is killed or the disk full."""

import os

import pytest

from vmctl import records
from vmctl.journal import Journal
from vmctl.linux import syscalls


def test_entries_come_back_in_order_without_those_struck(tmp_path):
    journal = Journal(str(tmp_path / "journal"))
    journal.record("mount", path="/a")
    journal.record("process", pid=1, start=2)
    journal.record("mount", path="/b")
    journal.strike("mount", path="/a")
    assert journal.entries() == [{"kind": "process", "pid": 1, "start": 2}, {"kind": "mount", "path": "/b"}]


def test_no_file_is_no_entry(tmp_path):
    assert Journal(str(tmp_path / "nothing")).entries() == []


def test_a_line_cut_short_counts_as_not_written(tmp_path):
    path = str(tmp_path / "lines")
    records.append(path, {"n": 1})
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"n": 2')
    assert records.lines(path, "lines").objects == [{"n": 1}]


@pytest.fixture
def full_disk(tmp_path):
    """Yield a folder on a file system of one page."""
    syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=4k")
    yield tmp_path
    syscalls.umount2(str(tmp_path))


def test_a_full_disk_leaves_the_lines_before_whole(full_disk):
    path = str(full_disk / "lines")
    records.append(path, {"text": "x" * 3000})
    with pytest.raises(OSError, match="No space left"):
        records.append(path, {"text": "y" * 3000})
    assert [line["text"][0] for line in records.lines(path, "lines").objects] == ["x"]
    records.append(path, {"text": "z"})
    assert [line["text"][0] for line in records.lines(path, "lines").objects] == ["x", "z"]
    assert os.path.getsize(path) < 4096
