"""The short form of `make soak`: random commands with SIGKILL at random moments leave nothing on the host."""

import os
import signal
import subprocess
import sys

import pytest
from soak import left
from support.commands import ok, vmctl

from vmctl import paths
from vmctl.instances import instance

HERE = os.path.dirname(os.path.abspath(__file__))


def soak(*words):
    done = subprocess.run(
        [sys.executable, "-m", "soak", *words], cwd=HERE, capture_output=True, text=True, errors="replace", timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 left something" in done.stdout
    assert not done.stdout.startswith("0 cycles")


@pytest.mark.parametrize("who", [[], ["--user"]], ids=["root", "user"])
def test_containers_and_plain_processes(who):
    soak("--mode", "container", "--mode", "host", "--cycles", "40", "--seconds", "20", *who)


def test_guests():
    soak("--mode", "vm", "--cycles", "3", "--seconds", "15")


def test_what_is_left_is_seen(own_root):
    """Else the tests above would prove nothing."""
    root, name = str(own_root), f"{left.PREFIX}{os.getpid()}"
    assert left._found(root) == []
    path = own_root / f"{name}.yaml"
    path.write_text(f"name: {name}\nimage: tiny\ncommand: [sleep, '1000']\n")
    ok("up", str(path))
    try:
        kinds = {text.split(" ")[0] for text in left._found(root)}
        assert {"process", "mount", "cgroup", "file"} <= kinds
        os.kill(instance.load(name).state.supervisor_pid, signal.SIGKILL)
    finally:
        vmctl("down", "-t", "0", name)
    assert left.left(root) == []
    stray = os.path.join(paths.instances_root(), "stray")
    os.mkdir(stray)
    assert left._found(root) == [f"file {stray.removeprefix(paths.state_root())}"]


def test_several_at_once():
    """The short form of `make crowd`; how long it takes is not judged here."""
    words = [sys.executable, "-m", "soak.crowd", "--count", "6"]
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=280)
    assert "6 of 6 run" in done.stdout, done.stdout + done.stderr
    assert "0 objects left" in done.stdout
