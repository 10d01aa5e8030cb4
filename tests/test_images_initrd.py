import lzma
import os
import shutil

import pytest
from support import judges

from images.kernels import initrd, kernel, modules
from images.kernels.kernel import Kernel
from vmctl.errors import NotFoundError, VmctlError
from vmctl.programs import run

NAMES = ("virtio_blk", "erofs", "overlay", "isofs", "virtio-rng")


@pytest.fixture
def debian(own_root):
    return kernel.find("debian")


@pytest.fixture
def init(tmp_path):
    path = tmp_path / "my-init"
    path.write_text("#!/bin/busybox sh\necho hello\n")
    return path


def test_cpio_reads_what_was_put_in(debian, init):
    archive = initrd.build(debian, [(str(init), "/init", 0o755), (str(init), "etc/deep/er", 0o600)], NAMES)
    lines = judges.cpio_list(archive)
    listed = {line.split()[-1]: line.split()[0] for line in lines if "->" not in line}
    assert listed["init"] == "-rwxr-xr-x"
    assert listed["etc/deep/er"] == "-rw-------"
    assert listed["etc/deep"] == "drwxr-xr-x"
    assert listed["bin/busybox"] == "-rwxr-xr-x"
    assert listed["dev/console"] == "crw-------"
    assert any(line.endswith("bin/sh -> busybox") for line in lines)
    assert judges.cpio_read(archive, "init") == init.read_text()
    names = list(listed)
    assert all(names.index(os.path.dirname(name)) < names.index(name) for name in names if "/" in name)


def test_modules_come_with_their_dependencies_and_after_them(debian, init):
    archive = initrd.build(debian, [(str(init), "init", 0o755)], NAMES)
    order = judges.cpio_read(archive, initrd.MODULE_LIST).splitlines()
    names = [os.path.basename(path).removesuffix(".ko") for path in order]
    assert {"virtio_blk", "erofs", "overlay", "isofs", "virtio_rng", "virtio_ring"} <= set(names)
    listed = "\n".join(judges.cpio_list(archive))
    for path, source in zip(order, modules.load_order(debian, NAMES), strict=True):
        assert path[1:] in listed
        needed = run(["modinfo", "-F", "depends", source])[1].strip().replace("-", "_")
        done = names[: order.index(path)]
        assert all(module in done for module in needed.split(",") if module)


def test_it_is_built_again_only_when_an_input_changed(debian, init):
    files = [(str(init), "init", 0o755)]
    first = initrd.build(debian, files, NAMES)
    written = os.stat(first).st_mtime_ns
    assert initrd.build(debian, files, NAMES) == first
    assert os.stat(first).st_mtime_ns == written
    assert initrd.build(debian, files, NAMES[:1]) != first
    assert initrd.build(debian, [(str(init), "init", 0o700)], NAMES) != first
    init.write_text("#!/bin/busybox sh\necho other\n")
    changed = initrd.build(debian, files, NAMES)
    assert changed != first
    assert "other" in judges.cpio_read(changed, "init")


def test_an_archive_is_stale_once_an_input_has_changed_or_is_gone(debian, init):
    other = init.parent / "other-init"
    other.write_text("#!/bin/busybox sh\n")
    first = initrd.build(debian, [(str(init), "init", 0o755)], NAMES)
    second = initrd.build(debian, [(str(other), "init", 0o755)], NAMES)
    assert initrd.stale() == []
    init.write_text("#!/bin/busybox sh\necho changed\n")
    assert initrd.stale() == [first, first + ".inputs"]
    third = initrd.build(debian, [(str(init), "init", 0o755)], NAMES)
    other.unlink()
    assert initrd.stale() == sorted([first, first + ".inputs", second, second + ".inputs"])
    assert third not in initrd.stale()


@pytest.mark.parametrize(
    "content", ["", "[[]]", '{"files": [[1]]}', '{"files": [{"source": 7}]}', '{"format": 2}', "[" * 9999]
)
def test_an_archive_without_a_list_of_inputs_is_stale(debian, init, content):
    path = initrd.build(debian, [(str(init), "init", 0o755)], NAMES)
    with open(path + ".inputs", "w", encoding="utf-8") as file:
        file.write(content)
    assert initrd.stale() == [path, path + ".inputs"]
    assert initrd.build(debian, [(str(init), "init", 0o755)], NAMES) == path


def test_what_a_killed_command_has_half_written_is_stale(debian, init):
    path = initrd.build(debian, [(str(init), "init", 0o755)], [])
    for pid in (os.getpid(), 2**22 + 1):  # no pid is that high: proc(5), pid_max
        open(f"{path}.{pid}.new", "w").close()
    assert initrd.stale() == [f"{path}.{2**22 + 1}.new"]


def test_what_is_built_into_the_kernel_is_left_out(debian):
    assert modules.load_order(debian, ["ext4"]) == []


def test_a_module_the_kernel_lacks_is_named_and_nothing_is_left(debian, own_root):
    with pytest.raises(NotFoundError, match="has no module warp_drive"):
        initrd.build(debian, [], ["virtio_blk", "warp_drive"])
    with pytest.raises(FileNotFoundError):
        initrd.build(debian, [("/no/such/file", "init", 0o755)], [])
    assert not os.path.exists(own_root / "lib/cache/initrd")


def test_a_kernel_without_modules_dep_is_one_clear_error(tmp_path):
    with pytest.raises(VmctlError, match=r"modules\.dep cannot be read"):
        modules.load_order(Kernel("x", "1.0", "/boot/vmlinuz-1.0", str(tmp_path)), ["erofs"])


@pytest.mark.parametrize("suffix", ["xz", "gz", "zst"])
def test_compressed_modules_are_put_in_plain(debian, tmp_path, suffix):
    [plain] = modules.load_order(debian, ["overlay"])
    packed = tmp_path / f"overlay.ko.{suffix}"
    with open(plain, "rb") as file:
        data = file.read()
    if suffix == "xz":
        packed.write_bytes(lzma.compress(data))
    else:
        shutil.copy(plain, tmp_path / "overlay.ko")
        run([{"gz": "gzip", "zst": "zstd"}[suffix], "-q", str(tmp_path / "overlay.ko")])
    (tmp_path / "modules.dep").write_text(f"overlay.ko.{suffix}:\n")
    (tmp_path / "modules.builtin").write_text("")
    other = Kernel("other", "1.0", "/boot/vmlinuz-1.0", str(tmp_path))
    assert modules.load_order(other, ["overlay"]) == [str(packed)]
    assert modules.plain_name(str(packed)) == "overlay.ko"
    assert modules.content(str(packed)) == data
