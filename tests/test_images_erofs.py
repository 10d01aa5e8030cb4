import os
import shutil
import stat

import pytest

from images import erofs, store
from vmctl.errors import UnavailableError
from vmctl.host import syscalls
from vmctl.run import CommandError, run

pytestmark = pytest.mark.usefixtures("empty_root")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def test_the_same_tree_gives_the_same_bytes_in_whatever_order_it_was_made(tree, tmp_path):
    first = erofs.build_layer(str(tree))
    content = read(first.path)
    os.unlink(first.path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in sorted(os.listdir(tree), reverse=True):
        run(["cp", "-a", str(tree / name), str(copy)])
    os.unlink(copy / "hard-link")
    os.link(copy / "etc/hosts", copy / "hard-link")
    for path in (copy / "etc", copy):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    second = erofs.build_layer(str(copy))
    assert second == first
    assert read(second.path) == content


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "new").write_text(""),
        lambda tree: (tree / "etc/hosts").write_text("other"),
        lambda tree: (tree / "set-uid").chmod(0o755),
        lambda tree: os.chown(tree / "set-uid", 7, 7),
        lambda tree: os.utime(tree / "set-uid", (1, 1)),
    ],
    ids=["new file", "content", "mode", "owner", "time"],
)
def test_any_change_gives_another_layer(tree, change):
    before = erofs.build_layer(str(tree))
    change(tree)
    assert erofs.build_layer(str(tree)).digest != before.digest


def test_the_layer_has_what_the_tree_has(tree, tmp_path):
    layer = erofs.build_layer(str(tree))
    run(["fsck.erofs", layer.path])
    target = tmp_path / "mounted"
    target.mkdir()
    run(["mount", "-t", "erofs", "-o", "ro,loop", layer.path, str(target)])
    try:
        for folder, folders, files in os.walk(tree):
            for name in [*folders, *files]:
                path = os.path.relpath(os.path.join(folder, name), tree)
                assert facts(target / path) == facts(tree / path)
    finally:
        syscalls.umount2(str(target))


def facts(path):
    status = os.lstat(path)
    regular = stat.S_ISREG(status.st_mode)
    content = read(path) if regular else os.readlink(path) if stat.S_ISLNK(status.st_mode) else None
    return status.st_mode, status.st_uid, status.st_gid, status.st_rdev, int(status.st_mtime), content


def test_without_mkfs_erofs_the_error_names_it(tree, monkeypatch):
    monkeypatch.setattr("vmctl.run.which", lambda program: None)
    with pytest.raises(UnavailableError, match=r"mkfs\.erofs is not installed"):
        erofs.build_layer(str(tree))
    assert os.listdir(store.path("layers")) == []


def test_a_full_disk_leaves_no_half_layer(tree):
    os.makedirs(store.path("layers"))
    syscalls.mount("tmpfs", store.path("layers"), "tmpfs", 0, "size=16k")
    try:
        (tree / "large").write_bytes(bytes(200_000))
        with pytest.raises(CommandError, match=r"mkfs\.erofs failed"):
            erofs.build_layer(str(tree))
        assert os.listdir(store.path("layers")) == []
    finally:
        syscalls.umount2(store.path("layers"))


def test_a_tree_that_is_not_there_leaves_nothing(tree):
    shutil.rmtree(tree)
    with pytest.raises(FileNotFoundError):
        erofs.build_layer(str(tree))
    assert not os.path.exists(store.path("layers"))
