"""Bundles that somebody else has made."""

import os

import pytest
from support import bundles
from support.commands import vmctl


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundles.make(tmp_path_factory.mktemp("bundle"), "--kernel", "none")


@pytest.fixture
def elsewhere():
    with bundles.another_machine() as root:
        yield root


def _first_file(index):
    return index["trees"][0]["files"][0]


@pytest.mark.attack("writes files outside of the image store, or fills the disk, by a bundle", mode="any", who="root")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: _first_file(index).update(path="../../../etc/cron.d/x"), "outside of its folder"),
        (lambda index: _first_file(index).update(path="/etc/cron.d/x"), "outside of its folder"),
        (lambda index: _first_file(index).update(path="boot/../../x"), "outside of its folder"),
        (lambda index: _first_file(index).update(path=""), "outside of its folder"),
        (lambda index: _first_file(index).update(path="d/" * 3000 + "x"), "a name of 6001 letters"),
        (lambda index: _first_file(index).update(size_bytes=1), "does not have the 1 bytes"),
        (lambda index: _first_file(index).update(size_bytes=1 << 62), "the limit is"),
        (lambda index: index["trees"][0]["files"].append(_first_file(index)), "twice"),
        (lambda index: index["trees"][0].update(name="../../x"), "does not know"),
        (lambda index: index["trees"][0].update(kind="kernel", name="host"), "cannot be added"),
        (lambda index: index["trees"][0].update(name="other"), "does not use"),
        (lambda index: index["trees"][0].update(kind="other"), "does not know"),
        (lambda index: index["images"][0].update(name="../../x"), "name"),
        (lambda index: index["images"][0].update(digest="sha256:" + "0" * 64), "which its index names"),
        (lambda index: index["images"][0]["member"].update(sha256="../x"), "no SHA-256"),
        (lambda index: index["images"][0]["member"].update(name="/etc/passwd"), "outside of itself"),
        (lambda index: index.update(format=2), "later vmctl"),
        (lambda index: index.update(architecture="arm64"), "is for 'arm64'"),
        (lambda index: index.update(images=3), "is damaged"),
    ],
)
def test_a_hostile_bundle(bundle, elsewhere, tmp_path, change, message):
    result = vmctl("bundle", "use", bundles.with_index(bundle, tmp_path / "hostile.tar", change))
    assert result.code != 0
    assert message in result.err
    assert "mistake" not in result.err
    assert not [name for name in bundles.store_of(elsewhere) if not name.startswith("lib/images/")]
    assert not (tmp_path / "x").exists()
    assert not os.path.exists("/etc/cron.d/x")
