"""Cold starts: evicted files leave the page cache, and each mode lists the files that its starts read."""

import os

import pytest
from support.commands import wait_for

from bench import cold
from vmctl import backends
from vmctl.spec.workload import Workload

MIB = 1024**2
WORK = Workload(name="cold", image="tiny", command=("true",))

pytestmark = pytest.mark.skipif(cold.cached_bytes([]) is None, reason="cachestat(2) needs Linux 6.5")


@pytest.fixture
def folder(tmp_path):
    """A folder on a disk with 4 MiB in two files, and a link that leads out of it."""
    (tmp_path / "files/deeper").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(bytes(MIB))
    for name, size in (("files/one", MIB), ("files/deeper/three", 3 * MIB)):
        (tmp_path / name).write_bytes(os.urandom(size))
    os.link(tmp_path / "files/one", tmp_path / "files/same")
    os.symlink(tmp_path / "outside", tmp_path / "files/link")
    os.mkfifo(tmp_path / "files/fifo")
    return str(tmp_path / "files")


def test_what_was_just_read_is_all_there_and_then_it_is_gone(folder):
    paths = [os.path.join(folder, "one"), os.path.join(folder, "deeper/three")]
    for path in paths:
        with open(path, "rb") as file:
            file.read()
    assert cold.cached_bytes(paths) == 4 * MIB
    assert cold.evict(paths) == (4 * MIB, 0)
    with open(paths[0], "rb") as file:
        file.read()
    assert cold.cached_bytes(paths) == MIB


def test_a_folder_is_all_its_files_each_counted_once_and_none_outside(folder):
    outside = os.path.join(os.path.dirname(folder), "outside")
    assert cold.evict([folder, folder, os.path.join(folder, "missing")]) == (4 * MIB, 0)
    assert cold.cached_bytes([outside]) == MIB


def test_pages_mapped_by_a_running_program_stay_and_are_reported():
    with open("/proc/self/maps", encoding="utf-8") as file:
        (libc,) = {line.split()[-1] for line in file if "/libc.so" in line}
    found = cold.evict([libc])
    assert 0 < found.bytes_after <= found.bytes_before


@pytest.mark.parametrize("mode", sorted(backends.modes()))
def test_each_mode_names_what_a_start_reads(guest_root, mode):
    backend = backends.load(mode)
    paths = backend.reads(WORK)
    assert any(path.endswith(".erofs") and os.path.exists(path) for path in paths)
    if backend.features.own_kernel:
        names = " ".join(paths)
        assert all(word in names for word in ("/vmlinux/", "qemu-system", "seabios"))
    layer = next(path for path in paths if path.endswith(".erofs"))
    with open(layer, "rb") as file:
        file.read()
    found = cold.evict(paths)
    assert found.bytes_before >= os.path.getsize(layer)
    if cold.cached_bytes([layer]):  # another test is just reading it
        wait_for(lambda: cold.evict([layer]).bytes_after == 0)
