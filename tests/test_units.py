"""`vmctl enable`: the unit of systemd that starts an instance at boot, judged by systemd-analyze and done by hand."""

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
from support.commands import ok, refused, vmctl
from support.ordinary_user import OrdinaryUser
from support.restarted import restart_host

from vmctl.instances import instance
from vmctl.linux import mountinfo


@pytest.fixture
def units(own_root, monkeypatch):
    """The folder of the units of a test."""
    monkeypatch.setenv("VMCTL_UNITS", str(own_root / "units"))
    yield own_root / "units"
    for name in instance.names():
        vmctl("rm", "-f", name)
    mountinfo.unmount_all(str(own_root))


def start(*flags):
    ok("run", "-d", "--network", "none", "--name", "web", *flags, "tiny", "--", "sleep", "1000")


def status():
    (row,) = json.loads(ok("ps", "-a", "--format", "json"))
    return row["status"]


def do(unit, key):
    """Do what systemd does for a command of a unit."""
    (line,) = re.findall(rf"^{key}=(.*)$", unit, re.M)
    words = [word.replace("%%", "%") for word in shlex.split(line)]
    assert words[0].startswith(":/")
    variables = dict(shlex.split(value)[0].split("=", 1) for value in re.findall("^Environment=(.*)$", unit, re.M))
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}  # systemd.exec(5)
    subprocess.run([words[0][1:], *words[1:]], env={**path, **variables}, cwd="/", check=True, timeout=240)


def test_a_unit_starts_and_stops_the_instance(units):
    start("--restart", "unless-stopped")
    assert ok("enable", "web") == "web\n"
    path = units / "vmctl-web.service"
    assert os.readlink(units / "multi-user.target.wants/vmctl-web.service") == str(path)
    assert path.stat().st_mode & 0o777 == 0o644
    text = path.read_text()
    restart_host("web")
    assert status() == "exited"
    do(text, "ExecStart")
    assert status() == "running"
    do(text, "ExecStart")  # it runs already
    do(text, "ExecStop")
    assert status() == "exited"
    do(text, "ExecStart")  # it was stopped, and its policy minds that
    assert status() == "exited"
    assert ok("enable", "web") == "web\n"
    ok("disable", "web")
    assert [file for _, _, files in os.walk(units) for file in files] == []
    assert ok("disable", "web") == "web\n"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(units):
    start()
    ok("enable", "-q", "web")
    judged = subprocess.run(
        ["systemd-analyze", "verify", units / "vmctl-web.service"], capture_output=True, text=True, timeout=240
    )
    assert judged.returncode == 0, judged
    assert "vmctl-web" not in judged.stderr


@pytest.mark.parametrize("end", [("rm", "-f"), ("down", "-t", "0")], ids=" ".join)
def test_it_is_removed_with_the_instance(units, end):
    start()
    ok("enable", "-q", "web")
    ok("restart", "-q", "-t", "0", "web")
    assert (units / "vmctl-web.service").exists()
    ok(*end, "web")
    assert [file for _, _, files in os.walk(units) for file in files] == []


def test_it_follows_another_name(units):
    """Enabled before, it is enabled after, by the new name only; a name whose unit is somebody else's is refused."""
    ok("create", "--network", "none", "--name", "web", "tiny", "--", "sleep", "1000")
    ok("enable", "-q", "web")
    (units / "vmctl-other.service").write_text("[Unit]\n")
    assert "vmctl has not written it" in refused("rename", "web", "other")
    assert (units / "multi-user.target.wants/vmctl-web.service").exists()
    assert ok("rename", "web", "new") == "new\n"
    assert sorted(os.listdir(units / "multi-user.target.wants")) == ["vmctl-new.service"]
    do((units / "vmctl-new.service").read_text(), "ExecStart")
    assert status() == "running"
    assert vmctl("rm", "-f", "new").err == ""
    assert [file for _, _, files in os.walk(units) for file in files] == ["vmctl-other.service"]


def test_a_unit_of_somebody_else_is_left_alone(units):
    start()
    units.mkdir()
    path = units / "vmctl-web.service"
    path.write_text("[Unit]\n")
    assert "vmctl has not written it" in refused("enable", "web")
    path.unlink()
    ok("enable", "-q", "web")
    path.write_text("[Unit]\n# mine\n")
    ok("rm", "-f", "web")
    assert path.read_text() == "[Unit]\n# mine\n"


def test_a_secret_from_a_variable_is_refused(units):
    ok(
        *("run", "-d", "--name", "web", "--secret", "id=a,env=A", "tiny", "--", "sleep", "1000"),
        env={**os.environ, "A": "x"},
    )
    assert "which is not set at boot" in refused("enable", "web")
    assert not units.exists()


@pytest.mark.parametrize("folder", ["a b%c\"$HOME'\\", "é"])
def test_folders_of_any_name(units, tmp_path, monkeypatch, folder):
    """The unit leads to the same state root; systemd would replace %c and $HOME."""
    root = tmp_path / folder
    images = os.path.join(os.environ["VMCTL_ROOT"], "lib/images")
    os.makedirs(root / "lib")
    os.symlink(images, root / "lib/images")
    monkeypatch.setenv("VMCTL_ROOT", str(root))
    start()
    ok("enable", "-q", "web")
    (line,) = re.findall("^Environment=(.*)$", (units / "vmctl-web.service").read_text(), re.M)
    quoted = line[1:-1].replace("%%", "%").replace('\\"', '"').replace("\\\\", "\\")
    assert quoted == f"VMCTL_ROOT={root}"
    ok("rm", "-f", "web")
    mountinfo.unmount_all(str(root))


def test_the_unit_of_an_ordinary_user():
    with OrdinaryUser() as user:
        user.give_image()
        user.ok("run", "-d", "--network", "none", "--name", "web", "tiny", "--", "sleep", "1000")
        user.ok("enable", "-q", "web")
        path = os.path.join(user.home, ".config/systemd/user/vmctl-web.service")
        with open(path) as file:
            text = file.read()
        assert "WantedBy=default.target" in text
        assert os.stat(path).st_uid == user.uid
        user.ok("down", "-t", "0", "web")
        assert not os.path.lexists(path)
