import json
import os
import struct

import pytest
from support.commands import ok, refused, vmctl

from images.kernels import initrd, inventory, kernel, modules
from images.packages import deb
from images.store import store
from vmctl import paths
from vmctl.errors import ConflictError, NotFoundError, SpecError, UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.programs import run
from vmctl.spec.workload import Workload


def test_debians_kernel_is_in_the_store_with_its_modules(own_root):
    found = kernel.find("debian")
    assert found.name == "debian"
    assert found.release.endswith(("-amd64", "-arm64"))
    assert os.path.exists(found.vmlinuz)
    for name in ("modules.dep", "modules.builtin"):
        assert os.path.getsize(os.path.join(found.modules, name)) > 0


def test_a_kernel_given_by_path_brings_the_modules_of_its_tree(own_root):
    debian = kernel.find("debian")
    found = kernel.find(debian.vmlinuz)
    assert found.name == debian.vmlinuz
    assert found[1:] == debian[1:]


def test_the_release_is_read_from_the_image_whatever_the_file_is_called(own_root, tmp_path):
    debian = kernel.find("debian")
    os.makedirs(tmp_path / "lib/modules")
    os.makedirs(tmp_path / "boot")
    os.symlink(debian.modules, tmp_path / "lib/modules" / debian.release)
    os.symlink(debian.vmlinuz, tmp_path / "boot/linux")
    assert kernel.find(str(tmp_path / "boot/linux")).release == debian.release


def test_fetching_again_changes_nothing_where_the_newest_is_there(own_root, monkeypatch):
    before = kernel.find("debian")
    monkeypatch.setattr(deb, "dependency", lambda package, prefix: prefix + before.release)
    monkeypatch.setattr(deb, "fetch", lambda package, folder: pytest.fail("fetched again"))
    assert kernel.fetch_debian() == before


def test_a_failed_fetch_leaves_no_half_kernel(empty_root, monkeypatch):
    monkeypatch.setattr(deb, "dependency", lambda package, prefix: "linux-image-0-no-such-package")
    with pytest.raises(UnavailableError, match="linux-image-0-no-such-package could not be fetched"):
        kernel.fetch_debian()
    assert os.listdir(store.path("kernels")) == []
    with pytest.raises(NotFoundError, match="not in the store") as caught:
        kernel.find("debian")
    assert "vmctl image kernel fetch" in caught.value.hint


def test_a_package_that_apt_does_not_know_is_named():
    with pytest.raises(UnavailableError, match="no-such-package-at-all"):
        deb.dependency("no-such-package-at-all", "linux-image-")


@pytest.fixture
def small(own_root, tmp_path):
    """A folder with Debian's kernel image and the two modules of it that depend on no other, and that release."""
    debian = kernel.find("debian")
    release, root = debian.release, tmp_path / "small"
    target = root / "lib/modules" / release
    (root / "boot").mkdir(parents=True)
    (target / "kernel").mkdir(parents=True)
    run(["cp", debian.vmlinuz, str(root / "boot/my-linux")])
    for file in (*modules.load_order(debian, ["overlay", "isofs"]),):
        run(["cp", file, str(target / "kernel")])
    for name in ("modules.builtin", "modules.order"):
        run(["cp", os.path.join(debian.modules, name), str(target)])
    os.symlink("/usr/src/nowhere", target / "build")
    return root, release


@pytest.fixture
def own_kernels(small, monkeypatch, tmp_path):
    """A store with no kernel in it, but the packages of the host's; see `small`."""
    packages = store.path("packages")
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "another"))
    os.makedirs(store.path())
    os.symlink(packages, store.path("packages"))
    return small


def test_a_kernel_is_added_with_its_modules_and_found_by_its_name(own_kernels):
    root, release = own_kernels
    found = inventory.add(str(root / "boot/my-linux"), modules=str(root), name="mine")
    assert found == kernel.find("mine")
    assert (found.name, found.release) == ("mine", release)
    assert found.vmlinuz.startswith(store.path("kernels", "mine"))
    assert sorted(os.listdir(found.modules))[0] == "kernel"  # without `build`, which leads out of the store
    names = [os.path.basename(file) for file in modules.load_order(found, ["overlay"])]  # depmod has been run
    assert names == ["overlay.ko"]
    assert [kept.kernel for kept in inventory.ls() if kept.origin != "host"] == [found]
    assert inventory.names() == ["mine"]


def test_modules_are_found_in_a_folder_of_any_depth(own_kernels):
    root, release = own_kernels
    for number, folder in enumerate((root, root / "lib/modules", root / "lib/modules" / release)):
        inventory.add(str(root / "boot/my-linux"), modules=str(folder), name=f"n{number}")
    with pytest.raises(NotFoundError, match="no modules of the kernel"):
        inventory.add(str(root / "boot/my-linux"), modules=str(root / "boot"))


def test_an_added_kernel_is_called_by_its_release_unless_named(own_kernels):
    root, release = own_kernels
    assert inventory.add(str(root / "boot/my-linux"), modules=str(root)).name == release
    with pytest.raises(ConflictError, match="the store already has a kernel"):
        inventory.add(str(root / "boot/my-linux"), modules=str(root))
    for name in ("debian", "host", "../up", "a/b", ".hidden", "x" * 200):
        with pytest.raises(SpecError, match="cannot be added under the name"):
            inventory.add(str(root / "boot/my-linux"), modules=str(root), name=name)
    assert os.listdir(store.path("kernels")) == [release]


def test_a_kernel_whose_modules_are_incomplete_leaves_nothing(own_kernels):
    root, release = own_kernels
    os.unlink(root / "lib/modules" / release / "modules.builtin")
    with pytest.raises(VmctlError):
        inventory.add(str(root / "boot/my-linux"), modules=str(root), name="mine")
    assert os.listdir(store.path("kernels")) == []


def test_a_kernel_and_modules_that_are_no_files_are_not_waited_for(own_kernels):
    root, release = own_kernels
    image, module = root / "boot/my-linux", root / "lib/modules" / release / "kernel/made.ko"
    fifo = root / "boot/fifo"
    os.mkfifo(fifo)
    for words in ((str(fifo),), (str(fifo), "--modules", str(root)), ("/dev/zero", "--modules", str(root))):
        assert "is not a regular file" in refused("image", "kernel", "add", *words, timeout_s=60)
    for make in (os.mkfifo, lambda path: os.mknod(path, 0o20600, os.makedev(1, 5))):  # a device without an end
        make(module)
        found = refused("image", "kernel", "add", str(image), "--modules", str(root), timeout_s=60)
        assert "modules of the kernel cannot be copied" in found
        assert os.listdir(store.path("kernels")) == []
        module.unlink()


def test_a_header_that_lies_about_the_release_is_refused(own_root, tmp_path):
    image = bytearray(0x400)
    image[0x202:0x206] = b"HdrS"
    for offset, text in ((0xFFFF, b""), (0x100, b"../../etc 1\0")):
        struct.pack_into("<H", image, 0x20E, offset)
        image[0x300 : 0x300 + len(text)] = text
        (tmp_path / "vmlinuz").write_bytes(image)
        with pytest.raises(NotFoundError, match="is not a kernel image with a release"):
            inventory.add(str(tmp_path / "vmlinuz"))


def test_a_kernel_in_use_stays_until_its_instance_is_removed(own_kernels):
    root, _ = own_kernels
    inventory.add(str(root / "boot/my-linux"), modules=str(root), name="mine")
    inst = instance.create(Workload("guest", "tiny"), "vm")
    assert kernel.lease("mine", inst) == kernel.find("mine")
    assert kernel.lease("mine", inst) == kernel.find("mine")  # as when a start is repeated
    assert [kept.users for kept in inventory.ls() if kept.kernel.name == "mine"] == [["guest"]]
    assert "the kernel mine is used by guest" in refused("image", "kernel", "rm", "mine")
    ok("rm", "guest")
    initrds = os.path.join(paths.cache_root(), "initrd")
    os.makedirs(initrds)
    with open(os.path.join(initrds, "of-mine.cpio"), "w", encoding="utf-8"):  # of files that do not exist any more
        pass
    ok("image", "kernel", "rm", "mine")
    assert os.listdir(store.path("kernels")) == os.listdir(initrds) == []


def test_a_kernel_in_use_can_be_removed_by_force(own_kernels):
    root, _ = own_kernels
    inventory.add(str(root / "boot/my-linux"), modules=str(root), name="mine")
    kernel.lease("mine", instance.create(Workload("guest", "tiny"), "vm"))
    ok("image", "kernel", "rm", "-f", "mine")
    with pytest.raises(NotFoundError, match="there is no kernel mine"):
        kernel.lease("mine", instance.load("guest"))


def test_a_start_does_not_wait_for_the_download_of_another_kernel(own_kernels):
    root, _ = own_kernels
    inventory.add(str(root / "boot/my-linux"), modules=str(root), name="mine")
    inst = instance.create(Workload("guest", "tiny"), "vm")
    with store.locked("kernel.lock"):  # as `vmctl image kernel fetch` holds it
        assert kernel.lease("mine", inst).name == "mine"


def test_kernels_on_the_command_line(own_kernels):
    root, release = own_kernels
    assert ok("image", "kernel", "add", str(root / "boot/my-linux"), "--modules", str(root), "--name", "a") == "a\n"
    ok("image", "kernel", "add", str(root / "boot/my-linux"), "--modules", str(root), "--name", "b")
    rows = [row for row in json.loads(ok("image", "kernel", "ls", "--format", "json")) if row["origin"] != "host"]
    assert [(row["name"], row["release"], row["instances"]) for row in rows] == [("a", release, []), ("b", release, [])]
    assert rows[0]["size_bytes"] > os.path.getsize(root / "boot/my-linux")
    assert "NAME" in ok("image", "kernel", "ls")
    result = vmctl("image", "kernel", "rm", "a", "no-such", "../a", "b")
    assert (result.code, result.out) == (125, "a\nb\n")
    assert result.err.count("the store has no kernel") == 2
    assert "the store has no kernel a" in refused("image", "kernel", "rm", "a")


def test_the_initrd_of_an_added_kernel_is_built_once(own_kernels):
    root, _ = own_kernels
    found = inventory.add(str(root / "boot/my-linux"), modules=str(root), name="mine")
    init = root / "init"
    init.write_text("#!/bin/busybox sh\n")
    first = initrd.build(found, [(str(init), "init", 0o755)], ["overlay"])
    assert initrd.build(kernel.find("mine"), [(str(init), "init", 0o755)], ["overlay"]) == first
    inventory.remove("mine")
    assert initrd.stale() == [first, first + ".inputs"]


@pytest.mark.parametrize("name", ["windows", "/no/such/vmlinuz", "/etc/hosts", "/etc", "host"])
def test_what_is_no_kernel_is_one_clear_error(empty_root, name):
    if name == "host" and os.path.exists(f"/lib/modules/{os.uname().release}/modules.dep"):
        assert kernel.find("host").release == os.uname().release
    else:
        with pytest.raises(VmctlError, match=r"kernel"):
            kernel.find(name)
