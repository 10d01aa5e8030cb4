"""`read_only: true`: nothing of the root can be written, in every mode."""

import json

import pytest
from support.commands import ok, refused, vmctl

pytestmark = pytest.mark.timeout(600)

SCRIPT = (
    "for f in / /etc /usr /var /work; do"
    "  touch $f/made 2>/dev/null && echo wrote $f;"
    "done; rm /etc/passwd 2>/dev/null && echo removed;"
    "for f in /run /tmp /var/tmp /dev/shm; do touch $f/made && echo ok $f; done; pwd; cat /etc/given"
)


@pytest.mark.parametrize("mode", ["container", "host", "vm"])
def test_only_what_is_in_memory_can_be_written(guest_root, tmp_path, mode):
    path = tmp_path / "sealed.json"
    work = {
        "image": "tiny",
        "read_only": True,
        "workdir": "/work/place",
        "files": [{"path": "/etc/given", "content": "given\n"}, {"path": "/tmp/early", "content": ""}],
        "network": "host" if mode == "host" else "bridge",
        "command": ["sh", "-c", f"{SCRIPT}; ls /tmp; sleep 1000"],
        "ready": {"log": "early", "timeout": "240s"},
    }
    path.write_text(json.dumps(work))
    try:
        ok("up", "--mode", mode, str(path))
        written = ["ok /run", "ok /tmp", "ok /var/tmp", "ok /dev/shm", "/work/place", "given", "early", "made"]
        assert ok("logs", "sealed").splitlines() == written
        assert "ead-only file system" in vmctl("exec", "sealed", "--", "touch", "/made").err
        ok("exec", "-u", "1000", "sealed", "--", "touch", "/tmp/mine")
        if mode != "vm":
            assert "made" not in ok("diff", "sealed")
    finally:
        vmctl("rm", "-f", "sealed")


def test_with_volumes(own_root, tmp_path):
    (tmp_path / "volume").mkdir()
    flags = ("--read-only", "--network", "none", "-v", f"{tmp_path}/volume:/tmp/deep/volume")
    ok("run", *flags, "tiny", "--", "touch", "/tmp/deep/volume/made")
    assert (tmp_path / "volume/made").exists()


def test_it_cannot_be_undone_inside(own_root):
    script = "mount -o remount,rw /; mount -o remount,bind,rw /; touch /made"
    assert vmctl("run", "--read-only", "--network", "none", "tiny", "--", "sh", "-c", script).code != 0


def test_a_system_that_boots_is_refused(own_root, tmp_path):
    path = tmp_path / "box.yaml"
    path.write_text("image: tiny\nread_only: true\nvm: {boot: system}\n")
    assert "read_only: a system that boots has to write to its root" in refused("up", "--mode", "vm", str(path))
