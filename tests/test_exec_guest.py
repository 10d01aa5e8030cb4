"""What only a guest can do to `exec`: its agent ends or is missing, or the guest goes. One guest for all tests."""

import os
import time

import pytest
from support.commands import inspect, ok, passes_signals_on, refused, start, vmctl, wait_for

from vmctl.instances import instance
from vmm import files

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def guest(guest_root, tmp_path_factory):
    spec = tmp_path_factory.mktemp("guest") / "lone.yaml"
    spec.write_text("image: tiny\nnetwork: none\ncommand: [sleep, '100000']\n")
    ok("up", "-q", "--mode", "vm", str(spec))
    yield "lone"
    vmctl("rm", "-f", "lone")


def test_an_agent_that_ends_is_started_again(guest):
    with start("exec", guest, "--", "sh", "-c", "echo ready; sleep 1000") as command:
        assert command.stdout.readline() == b"ready\n"
        killed = vmctl("exec", guest, "--", "sh", "-c", "kill -9 $(pidof agent)")
        assert (killed.code, killed.out) == (125, "")
        assert command.wait(60) == 125
        assert b"the agent of the guest lone has ended, and the command with it\n" in command.stderr.read()
    assert ok("exec", guest, "--", "echo", "again") == "again\n"
    assert vmctl("exec", guest, "--", "pidof", "sleep").out.count(" ") <= 1  # its commands have ended with it


def test_a_guest_without_an_agent_says_so(guest):
    path = files.agent(instance.load(guest))
    os.rename(path, path + ".away")
    try:
        said = refused("exec", guest, "--", "true")
        assert "the guest lone has no agent to run commands" in said
        assert "hint: " in said
        assert "vmctl restart lone" in said
    finally:
        os.rename(path + ".away", path)


def test_a_guest_that_hangs_does_not_keep_exec(guest):
    """Its processor is stopped, so no command runs."""
    pid = inspect(guest)["pid"]
    os.kill(pid, 19)
    try:
        with start("exec", guest, "--", "true") as command:
            passes_signals_on(command.pid)
            command.send_signal(15)
            assert command.wait(60) == 128 + 15
    finally:
        os.kill(pid, 18)
    with start("exec", guest, "--", "sh", "-c", "echo ready; sleep 1000") as command:
        assert command.stdout.readline() == b"ready\n"
        os.kill(pid, 19)
        try:
            for _ in range(2):
                command.send_signal(15)
                time.sleep(0.3)
            assert command.wait(60) == 128 + 9
        finally:
            os.kill(pid, 18)


def test_a_guest_that_powers_off_ends_exec(guest):
    """The last test with this guest."""
    begin = time.monotonic()
    said = refused("exec", guest, "--", "sh", "-c", "poweroff -f; sleep 1000")
    assert "lone has ended, and the command with it" in said
    assert time.monotonic() - begin < 30
    wait_for(lambda: inspect(guest)["status"] == "exited")
    assert "is not running" in refused("exec", guest, "--", "true")
