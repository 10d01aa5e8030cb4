"""Freezing an instance: all its processes, only during the block, and no longer than the freezing command lives."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support.commands import ok, vmctl, wait_for

from vmctl import backends
from vmctl.instances import freezer, instance
from vmctl.journal import Journal

QUICK = [mode for mode in sorted(backends.modes()) if not backends.load(mode).features.own_kernel]
# a process that starts children all the time; each of them writes
BUSY = "while :; do date +%s%N > /clock; done"
HOLD = """
import sys, time
from vmctl.instances import freezer, instance
with freezer.frozen(instance.load("busy")):
    print("held", flush=True)
    time.sleep(1000)
"""


@pytest.fixture(params=QUICK)
def busy(request, own_root, tmp_path):
    """An instance whose processes write all the time."""
    path = tmp_path / "busy.yaml"
    path.write_text(f"image: tiny\ncommand: [sh, -c, '{BUSY}']\n")
    ok("up", "--mode", request.param, str(path))
    inst = instance.load("busy")
    wait_for(lambda: os.path.exists(inst.path("upper/clock")))
    yield inst
    vmctl("down", "busy")


def clock(inst):
    with open(inst.path("upper/clock"), encoding="ascii") as file:
        return file.read()


def is_running(inst):
    before = clock(inst)
    return wait_for(lambda: clock(inst) != before)


def test_nothing_is_written_while_it_is_frozen_and_it_runs_afterwards(busy):
    assert is_running(busy)
    for _ in range(3):
        with freezer.frozen(busy):
            seen = clock(busy)
            time.sleep(0.1)
            assert clock(busy) == seen
        assert is_running(busy)
    assert [entry for entry in busy.journal.entries() if entry["kind"] == freezer.KIND] == []


def test_it_is_thawed_if_the_freezing_command_is_killed(busy, tmp_path):
    process = start_python(HOLD, tmp_path)
    assert process.stdout.readline() == b"held\n"
    seen = clock(busy)
    time.sleep(0.1)
    assert clock(busy) == seen
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert is_running(busy)


def test_it_can_be_removed_if_the_guard_was_killed_too(busy):
    """SIGKILL does not reach a process that the v1 freezer has frozen."""
    group = freezer.find(busy.cgroup)
    Journal(busy.journal.path).record(freezer.KIND, name=busy.cgroup)
    freezer._gather(group, freezer.Cgroup(busy.cgroup))
    group.request(group.freeze)
    ok("rm", "-f", "busy")
    assert not group.temporary or not os.path.exists(group.folder)


def start_python(script, tmp_path):
    (tmp_path / "script.py").write_text(script)
    return subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE)
