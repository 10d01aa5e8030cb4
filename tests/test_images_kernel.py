import os

import pytest

from images import deb, kernel, store
from vmctl.errors import NotFoundError, UnavailableError, VmctlError


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
    assert "vmctl image kernel" in caught.value.hint


def test_a_package_that_apt_does_not_know_is_named():
    with pytest.raises(UnavailableError, match="no-such-package-at-all"):
        deb.dependency("no-such-package-at-all", "linux-image-")


@pytest.mark.parametrize("name", ["windows", "/no/such/vmlinuz", "/etc/hosts", "/etc", "host"])
def test_what_is_no_kernel_is_one_clear_error(empty_root, name):
    if name == "host" and os.path.exists(f"/lib/modules/{os.uname().release}/modules.dep"):
        assert kernel.find("host").release == os.uname().release
    else:
        with pytest.raises(VmctlError, match=r"kernel"):
            kernel.find(name)
