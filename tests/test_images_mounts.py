import os

import pytest
from support.images_made import put

from images.layer import mounts
from vmctl.instances import instance
from vmctl.linux import syscalls
from vmctl.programs import run
from vmctl.spec.workload import Workload

pytestmark = pytest.mark.usefixtures("empty_root")


@pytest.fixture
def layer(tree):
    return put("web", tree).layers[0]


@pytest.fixture
def make_instance():
    return lambda name: instance.create(Workload(name, "web"), "container")


def test_a_layer_is_mounted_once_for_all_and_goes_with_its_last_user(layer, make_instance):
    one, two = make_instance("one"), make_instance("two")
    target = mounts.mount_layer(layer, one)
    assert mounts.mount_layer(layer, two) == target
    assert mounted_at(target) == ["erofs"]
    with open(os.path.join(target, "etc/hosts")) as file:
        assert "localhost" in file.read()

    mounts.release_layer(layer.key, one)
    assert mounted_at(target) == ["erofs"]
    mounts.release_layer(layer.key, two)
    assert mounted_at(target) == []
    assert not os.path.exists(target)


def test_it_can_only_be_read(layer, make_instance):
    inst = make_instance("one")
    target = mounts.mount_layer(layer, inst)
    try:
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(os.path.join(target, "new"))
    finally:
        mounts.release_layer(layer.key, inst)


def test_what_was_only_announced_can_be_released(layer, make_instance):
    inst = make_instance("one")
    inst.journal.record(mounts.KIND, key=layer.key)
    mounts.release_layer(layer.key, inst)
    mounts.release_layer(layer.key, inst)


def test_the_announcement_precedes_the_mount(layer, make_instance):
    inst = make_instance("one")
    os.unlink(layer.path)
    with pytest.raises(FileNotFoundError):
        mounts.mount_layer(layer, inst)
    assert inst.journal.entries() == [{"kind": "layer", "key": layer.key}]
    mounts.release_layer(layer.key, inst)
    assert not os.path.exists(mounts.mount_point(layer.key))


def test_a_damaged_layer_is_refused_and_leaves_no_mount(layer, make_instance):
    inst = make_instance("one")
    os.chmod(layer.path, 0o644)
    with open(layer.path, "r+b") as file:
        file.write(bytes(4096))
    with pytest.raises(OSError, match="mount erofs"):
        mounts.mount_layer(layer, inst)
    assert mounted_at(mounts.mount_point(layer.key)) == []
    mounts.release_layer(layer.key, inst)


def test_older_kernels_mount_through_a_loop_device_that_goes_with_the_mount(layer, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    mounts.mount_through_loop(layer.path, str(target), syscalls.MS_RDONLY)
    try:
        assert (target / "etc/hosts").exists()
        assert loops_of(layer.path) == 1
    finally:
        syscalls.umount2(str(target))
    assert loops_of(layer.path) == 0


def test_a_failed_mount_frees_its_loop_device(layer, tmp_path):
    with pytest.raises(FileNotFoundError):
        mounts.mount_through_loop(layer.path, str(tmp_path / "absent"), syscalls.MS_RDONLY)
    assert loops_of(layer.path) == 0


def mounted_at(target):
    with open("/proc/mounts") as file:
        return [line.split()[2] for line in file if line.split()[1] == target]


def loops_of(path):
    return run(["losetup", "-j", path])[1].count("/dev/loop")
