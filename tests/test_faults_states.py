"""Every end has a name: out of memory, a restart of the host, a killed process of vmctl, a damaged record."""

import json
import os
import re
import signal

import pytest
from support.commands import inspect, ok, refused, vmctl, wait_for
from support.restarted import OTHER_BOOT, restart_host

from vmctl import backends, engine
from vmctl.instances import instance
from vmctl.linux import mountinfo, processes
from vmctl.net import switch
from vmctl.spec.workload import Workload

QUICK = [mode for mode in sorted(backends.modes()) if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)


@pytest.fixture(autouse=True)
def root(own_root):
    yield own_root
    for name in instance.names():
        vmctl("rm", "-f", name)
    mountinfo.unmount_all(str(own_root))


def up(root, mode, command="[sleep, '1000']", more="", name="web"):
    path = root / f"{name}.yaml"
    path.write_text(f"name: {name}\nimage: tiny\ncommand: {command}\n{more}")
    ok("up", "--mode", mode, str(path))
    return str(path)


def row(name="web"):
    (found,) = (row for row in json.loads(ok("ps", "-a", "--format", "json")) if row["name"] == name)
    return found


@EACH_QUICK_MODE
def test_a_workload_that_took_too_much_memory(root, mode):
    up(root, mode, "[sh, -c, 'x=$(head -c 200000000 /dev/zero | tr \"\\\\0\" x)']", "resources: {memory: 20M}\n")
    assert vmctl("wait", "web").code == 137
    assert (row()["exit_source"], inspect("web")["exit_source"]) == ("oom", "oom")
    assert "memory was used up" in row()["reason"]
    assert re.search(r"^web +\S+ +oom ", ok("ps", "-a"), re.MULTILINE)


@EACH_QUICK_MODE
def test_a_workload_that_is_killed_after_a_child_ran_out_of_memory(root, mode):
    up(root, mode, "[sh, -c, 'tail /dev/zero; echo $?; sleep 1000']", "resources: {memory: 20M}\nready: {log: '137'}\n")
    ok("kill", "web")
    assert vmctl("wait", "web").code == 137
    assert (row()["exit_source"], row()["oom_kills"]) == ("signal", 1)


@EACH_QUICK_MODE
def test_a_killed_supervisor(root, mode):
    up(root, mode)
    inst = instance.load("web")
    os.kill(inst.state.supervisor_pid, signal.SIGKILL)
    wait_for(lambda: row()["status"] == "exited")
    assert (row()["exit_source"], row()["reason"]) == ("unknown", "the process that reports its end was killed")
    assert inspect("web")["reason"] == row()["reason"]
    assert "the exit code of web is unknown" in refused("wait", "web")


def test_a_killed_command(root):
    inst = engine.create(Workload("web", "tiny"), backends.load("container"))
    assert inst.state.boot_id == processes.boot_id() != ""
    assert (row()["status"], row()["reason"]) == ("failed", "the command that started it was killed")


@EACH_QUICK_MODE
def test_every_verb_after_a_restart_of_the_host(root, mode):
    path = up(root, mode, "[sh, -c, 'echo here > /made; echo said; sleep 1000']", "ready: {log: said}\n")
    restart_host()
    assert (row()["status"], row()["reason"]) == ("exited", "the host was restarted while it ran")
    assert inspect("web")["reason"] == row()["reason"]
    assert ok("logs", "web") == "said\n"
    assert "/made" in ok("diff", "web")
    for words in (("stop", "web"), ("df",), ("image", "ls")):
        ok(*words)
    for words in (("exec", "web", "--", "true"), ("kill", "web"), ("wait", "web"), ("up", "--mode", mode, path)):
        refused(*words)
    ok("run", "--mode", mode, "tiny", "--", "true")
    ok("down", "web")
    assert instance.names() == []
    ok("up", "--mode", mode, path)
    ok("down", "-t", "0", "web")
    assert not switch.exists()


def test_a_restart_during_a_start(root):
    inst = engine.create(Workload("web", "tiny"), backends.load("container"))
    inst.state.boot_id = OTHER_BOOT
    inst.save()
    assert (row()["status"], row()["reason"]) == ("failed", "the host was restarted during its start")
    assert "web" in ok("prune", "-f")


def test_a_process_that_has_the_pid_of_one_of_an_earlier_boot_is_left_alone(root):
    """A host that starts in the same order gives the same pids, at the same times."""
    inst = engine.create(Workload("web", "tiny"), backends.load("host"))
    pid = os.fork()
    if pid == 0:
        os.execvp("sleep", ["sleep", "1000"])
    try:
        inst.state.status, inst.state.pid, inst.state.pid_start = "running", pid, processes.start_time(pid)
        inst.save()
        inst.journal.record_process(pid, processes.start_time(pid), "supervisor")
        assert row()["status"] == "running"
        with open(inst.path("state.jsonl"), "r+") as file:
            text = file.read().replace(processes.boot_id(), OTHER_BOOT)
            file.seek(0)
            file.write(text)
        with open(inst.path("journal"), "r+") as file:
            text = file.read().replace(processes.boot_id(), OTHER_BOOT)
            file.seek(0)
            file.write(text)
        assert row()["status"] == "exited"
        ok("rm", "-f", "web")
        assert processes.alive(pid, processes.start_time(pid))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# Records


@pytest.mark.parametrize(
    "line",
    [
        b'{"format": 1, "id": "01',
        b'{"format": 1, "id": "01\n',
        b"\0" * 4096,
        b"\0" * 4095 + b"\n",
        b'{"format": 1, "id": "01234567", "mode": 7}\n',
        b'{"format": 1, "marks_ns": {"T0": -1}}\n{}\n',
    ],
)
def test_the_last_whole_state_counts(root, line):
    up(root, "host")
    with open(instance.load("web").path("state.jsonl"), "ab") as file:
        file.write(line)
    assert row()["status"] == "running"
    damage = [text for text in inspect("web")["warnings"] if text.endswith(": this is the state before")]
    assert len(damage) == (b"}\n" in line)  # of a line that is whole, and wrong
    ok("down", "-t", "0", "web")


def test_a_state_of_a_later_version_is_not_replaced_by_an_older_one(root):
    up(root, "host")
    inst = instance.load("web")
    with open(inst.path("state.jsonl"), "ab") as file:
        file.write(json.dumps({**inst.state.values(), "phase_of_the_moon": "full"}).encode() + b"\n")
    assert row()["status"] == "unknown"
    assert "phase_of_the_moon" in row()["reason"]


@pytest.mark.parametrize("record", ["state.jsonl", "workload.json"])
@pytest.mark.parametrize("content", [b"", b"\0" * 4096])
@pytest.mark.parametrize("verb", ["down web", "rm web", "prune -f"])
def test_an_instance_that_a_loss_of_power_has_blanked(empty_root, record, content, verb):
    """ext4 may have written the names of its files, and not their content."""
    inst = engine.create(Workload("web", "tiny"), backends.load("host"))
    with open(inst.path(record), "wb") as file:
        file.write(content)
    assert row()["status"] == "unknown"  # blank, but not since before the host was started
    os.utime(inst.path(record), (1e9, 1e9))
    assert (row()["status"], "was lost when the host went down" in row()["reason"]) == ("failed", True)
    assert inspect("web")["reason"] == row()["reason"]
    ok(*verb.split())
    assert instance.names() == []
