"""Trees of files, measured and removed: also such as no path leads into."""

import os

import pytest
from support.commands import ok
from support.host_state import host_state, left_behind

from vmctl.linux import filetree


def deep(folder, levels):
    """Make folders in each other, by descriptors, and a file in the last one."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_a_tree_is_removed_and_what_its_links_lead_to_is_not(tree, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    (tree / "empty/link").symlink_to(tmp_path / "kept")
    for name in ("a/b/c", "a/d/e/f", "a/b2/c"):
        (tree / name).mkdir(parents=True)
    (tree / "a/b/link").symlink_to("..")
    filetree.remove_tree(str(tree))
    assert not tree.exists()
    assert (tmp_path / "kept/file").read_text() == "kept"
    filetree.remove_tree(str(tree))  # nothing there


def test_a_link_is_no_tree(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with pytest.raises(OSError, match="Not a directory"):
        filetree.remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "folder").exists()


def test_a_tree_deeper_than_a_path_is_long(tmp_path):
    (tmp_path / "top").mkdir()
    deep(tmp_path / "top", 1500)
    assert filetree.allocated_bytes(str(tmp_path / "top")) > 500 * 4096
    filetree.remove_tree(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == []


@pytest.mark.alone
def test_an_instance_with_such_a_tree_is_removed_as_any(own_root):
    before = host_state()
    script = "i=0; while [ $i -lt 1200 ]; do mkdir a && cd a && i=$((i+1)) || exit 7; done; echo $i"
    assert ok("run", "--network", "none", "tiny", "--", "sh", "-c", script) == "1200\n"
    assert left_behind(before) == {}
