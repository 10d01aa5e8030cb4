"""What a user or an image gives for an instance: volumes, working directories, variables."""

import os

import pytest
from support.commands import ok, refused, vmctl
from support.images_made import add

from images.store import store

MODES = pytest.mark.parametrize("mode", ["container", "host"])


@pytest.fixture
def folders(tmp_path):
    """Two folders of the host with a file each, as texts."""
    for name in ("v", "w"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of-{name}").write_text(name)
    return str(tmp_path / "v"), str(tmp_path / "w")


@MODES
def test_a_volume_in_a_volume_is_seen_in_either_order(own_root, folders, mode):
    v, w = folders
    for words in (("-v", f"{v}:/t", "-v", f"{w}:/t/sub/"), ("-v", f"{w}:/t/sub/", "-v", f"{v}:/t")):
        assert ok("run", "--mode", mode, *words, "tiny", "--", "ls", "/t", "/t/sub").split() == [
            *("/t:", "of-v", "sub"),
            *("/t/sub:", "of-w"),
        ]


@MODES
def test_a_volume_of_another_kind_than_its_target_is_named(own_root, folders, mode):
    v, _ = folders
    for source, target, why in (
        (f"{v}/of-v", "/etc", "a file cannot be mounted on /etc, which is a folder in the instance"),
        (v, "/etc/passwd", "a folder cannot be mounted on /etc/passwd, which is a file in the instance"),
    ):
        assert why in refused("run", "--mode", mode, "-v", f"{source}:{target}", "tiny", "--", "true")
    assert "/etc/passwd" in refused("run", "--mode", mode, "-v", f"{v}:/etc/passwd/x", "tiny", "--", "true")
    assert os.listdir(v) == ["of-v"]


@pytest.mark.parametrize("mode", ["container", "host", "vm"])
def test_a_working_directory_of_an_image_is_below_the_root(own_store, mode):
    """docker takes a relative one from / too; one with .. leads nowhere else."""
    tiny = store.find("tiny")
    for workdir, path in (("new/./er", "/new/er"), ("/a/../../etc", "/etc")):
        add("relative", tiny, workdir=workdir, cmd=("pwd",))
        assert ok("run", "--mode", mode, "relative") == f"{path}\n"


@pytest.mark.parametrize("mode", ["container", "host", "vm"])
def test_an_image_has_variables_whose_names_a_shell_does_not_know(own_store, mode):
    """`discovery.type` and the like: docker passes them on."""
    env = ("A.B=it's  $HOME `x`\n\\", "-n=1", "C=2", "alone")
    add("named", store.find("tiny"), env=env, cmd=("cat", "/proc/self/environ"))
    found = ok("run", "--mode", mode, "named").split("\0")
    assert set(env[:3]) <= set(found)
    assert "alone" not in "".join(found)


@MODES
def test_exec_makes_no_folder(own_root, tmp_path, mode):
    """A typing error must not change the instance."""
    (tmp_path / "idle.yaml").write_text("image: tiny\ncommand: [sleep, '1000']\n")
    ok("up", "-q", "--mode", mode, str(tmp_path / "idle.yaml"))
    try:
        assert ok("exec", "-w", "/etc/./", "idle", "--", "pwd") == "/etc\n"
        for path, why in (
            ("/typo", "it does not exist"),
            ("/etc/typo/x", "it does not exist"),
            ("/etc/passwd", "it is not a folder"),
        ):
            seen = vmctl("exec", "-w", path, "idle", "--", "pwd")
            assert (seen.code, seen.out) == (125, "")
            assert f"idle could not run the command: the folder {path} cannot be entered: {why}" in seen.err
        assert "typo" not in ok("diff", "idle")
    finally:
        ok("rm", "-f", "idle")
