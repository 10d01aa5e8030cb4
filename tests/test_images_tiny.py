import json
import os
import shutil
import threading

import pytest

from images.kernels import kernel
from images.layer import mounts
from images.packages import busybox, deb
from images.recipes import tiny
from images.store import store
from images.upkeep import defaults
from vmctl.errors import UnavailableError
from vmctl.instances import instance
from vmctl.programs import run
from vmctl.spec.workload import Workload


def test_tiny_is_small_and_runs(own_root):
    image = store.find("tiny")
    assert image.config.cmd == ("/bin/sh",)
    assert sum(os.stat(layer.path).st_size for layer in image.layers) < 4_000_000
    [layer] = image.layers
    user = instance.create(Workload("user", "tiny"), "container")
    root = mounts.mount_layer(layer, user)
    try:
        script = (
            "id -u; . /etc/os-release; echo $ID; ls -ld /tmp | cut -c1-10; awk 'BEGIN {print 6*7}'; httpd --help 2>&1"
        )
        output = run(["chroot", root, "/bin/sh", "-c", script], check=False)[1].splitlines()
        assert output[:4] == ["0", "vmctl-tiny", "drwxrwxrwt", "42"]
        assert any("Usage: httpd" in line for line in output)
        for folder in ("dev", "proc", "sys", "run", "srv", "root", "etc"):
            assert os.path.isdir(os.path.join(root, folder))
        assert os.readlink(os.path.join(root, "usr/bin/id")) == "../../bin/busybox"
    finally:
        mounts.release_layer(layer.key, user)


def test_built_twice_it_has_the_same_digest(empty_root):
    first = tiny.build()
    previous = os.umask(0o077)
    try:
        store.remove("tiny")
        assert tiny.build() == first
    finally:
        os.umask(previous)


def test_two_that_need_the_defaults_at_once_make_them_once(empty_root, monkeypatch):
    monkeypatch.setattr(kernel, "fetch_debian", lambda: None)  # 27 MB: it has a separate test
    said = []
    threads = [threading.Thread(target=defaults.ensure_defaults, args=(said.append,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [text for text in said if text.startswith("image tiny")] == ["image tiny: building from busybox"]
    assert store.find("tiny")


def test_without_network_the_error_names_the_package_and_leaves_nothing(empty_root, monkeypatch, tmp_path):
    config = tmp_path / "apt.conf"
    config.write_text(
        'Acquire::http::Proxy "http://127.0.0.1:1"; Acquire::https::Proxy "http://127.0.0.1:1"; Acquire::Retries "0";'
    )
    monkeypatch.setenv("APT_CONFIG", str(config))
    with pytest.raises(UnavailableError, match="busybox-static could not be fetched") as caught:
        tiny.build()
    assert "apt-get update" in caught.value.hint
    assert caught.value.detail
    assert store.ls() == []
    assert not os.path.exists(store.path("packages/busybox-static"))


def test_off_debian_an_installed_busybox_is_taken_if_it_is_static(tmp_path, monkeypatch):
    static = busybox.path()
    monkeypatch.setenv("VMCTL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(deb, "available", lambda: False)
    installed = tmp_path / "busybox.static"
    shutil.copy("/bin/cat", installed)
    shutil.copy("/bin/cat", tmp_path / "busybox")
    with pytest.raises(UnavailableError, match="no static busybox"):
        busybox.path()
    shutil.copy(static, installed)
    assert busybox.path() == str(installed)


def test_the_configuration_is_stored_as_oci_has_it(own_root):
    image = store.find("tiny")
    with open(store.path("blobs", *image.digest.split(":"))) as file:
        manifest = json.load(file)
    with open(store.path("blobs", *manifest["config"]["digest"].split(":"))) as file:
        assert json.load(file)["config"] == {"Cmd": ["/bin/sh"]}
