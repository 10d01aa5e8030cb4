"""Bundles: what is in the store goes to another store in one file, whole and verified, or not at all."""

import json
import os
import pathlib
import tarfile

import pytest
from support import bundles
from support.commands import ok, refused, vmctl


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundles.make(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return bundles.make(tmp_path_factory.mktemp("small"), "--kernel", "none")


@pytest.fixture
def elsewhere():
    with bundles.another_machine() as root:
        yield root


def test_a_machine_without_network_gets_all(bundle, elsewhere):
    here = {row["name"]: row for row in json.loads(ok("image", "kernel", "ls", "--format", "json"))}
    assert "debian" not in here
    assert ok("bundle", "use", bundle).splitlines()[-1] == "image tiny"
    assert ok("run", "tiny", "--", "echo", "hello") == "hello\n"
    (kernel,) = [row for row in json.loads(ok("image", "kernel", "ls", "--format", "json")) if row["name"] == "debian"]
    assert kernel["origin"] == "debian"
    assert ok("run", "--mode", "vm", "tiny", "--", "uname", "-r", timeout_s=300).strip() == kernel["release"]
    again = ok("bundle", "use", bundle).splitlines()
    assert all(line.endswith("(in the store already)") for line in again)


def test_the_same_store_gives_the_same_bundle(small, tmp_path):
    again = bundles.make(tmp_path, "--kernel", "none")
    assert pathlib.Path(again).read_bytes() == pathlib.Path(small).read_bytes()
    assert os.stat(small).st_mode & 0o077 == 0


def test_nothing_is_overwritten_by_accident(tmp_path):
    (tmp_path / "mine").write_text("mine")
    assert "--force" in refused("bundle", "make", "--kernel", "none", str(tmp_path / "mine"))
    assert "no image nothing" in refused("bundle", "make", "--image", "nothing", "--force", str(tmp_path / "mine"))
    assert "is not in the store" in refused(
        "bundle", "make", "--kernel", "host", "--image", "tiny", "--force", str(tmp_path / "mine")
    )
    assert (tmp_path / "mine").read_text() == "mine"
    ok("bundle", "make", "--kernel", "none", "--image", "tiny", "--force", str(tmp_path / "mine"))
    assert tarfile.is_tarfile(tmp_path / "mine")
    assert "cannot write" in refused("bundle", "make", "--kernel", "none", "--image", "tiny", "/proc/no/file")


def _flipped(members):
    name = next(name for name in members if name.startswith("package-"))
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


def _cut(members):
    members.pop([*members][-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flipped, "digest"),
        (_cut, "has no file"),
        (lambda members: members.pop("bundle.json"), "is not a bundle"),
        (lambda members: members.update({"bundle.json": b"{"}), "is damaged"),
        (lambda members: members.update({"bundle.json": b"[" * 100_000}), "is damaged"),
    ],
)
def test_a_damaged_bundle_changes_nothing(small, elsewhere, tmp_path, change, message):
    assert message in refused("bundle", "use", bundles.rewritten(small, tmp_path / "damaged.tar", change))
    assert bundles.store_of(elsewhere) == []


def test_what_a_later_version_adds_is_ignored(small, elsewhere, tmp_path):
    path = bundles.with_index(small, tmp_path / "later.tar", lambda index: index.update(new={"key": 1}))
    assert "image tiny" in ok("bundle", "use", path)


def test_other_labs_are_mentioned(small, elsewhere, tmp_path):
    path = bundles.with_index(
        small, tmp_path / "other.tar", lambda index: index["labs"].update(**{"shared-kernel": "0" * 64})
    )
    assert "the labs shared-kernel are others" in vmctl("bundle", "use", path).err


@pytest.mark.parametrize("kind", ["fifo", "folder", "nothing", "text"])
def test_files_that_are_no_bundles(elsewhere, tmp_path, kind):
    path = tmp_path / "file"
    {"fifo": os.mkfifo, "folder": os.mkdir, "text": lambda one: one.write_text("text"), "nothing": str}[kind](path)
    assert str(path) in refused("bundle", "use", str(path))


def test_reset_removes_all_but_images(own_store, tmp_path):
    (tmp_path / "stack.yaml").write_text(
        "services: {a: {image: tiny, command: [sleep, '1000'], networks: [inner], volumes: ['data:/data']}}\n"
        "networks: {inner: }\nvolumes: {data: }\nname: shop\n"
    )
    ok("up", str(tmp_path / "stack.yaml"), timeout_s=120)
    ok("run", "-d", "--name", "alone", "tiny", "--", "sleep", "1000")
    ok("volume", "create", "kept")
    ok("network", "create", "other")
    assert "no terminal to ask" in vmctl("lab", "reset").err
    assert ok("lab", "reset", "--force").split() == ["shop", "alone", "kept", "other"]
    assert ok("ps", "-aq") + ok("volume", "ls", "-q") == ""
    assert ok("network", "ls", "-q").split() == ["bridge"]
    assert ok("image", "ls", "-q").split() == ["tiny"]
    assert ok("lab", "reset") == ""
