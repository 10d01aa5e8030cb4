"""`run --rm`: an instance in the background is removed when it has ended, and who watches it loses nothing."""

import json
import os
import signal

import pytest
from support.commands import wait_for

from vmctl.linux import processes

SCRIPT = "while [ ! -e /end ]; do sleep 0.05; done; echo last words; exit 7"
QUICK = pytest.mark.parametrize("mode", ["container", "host"])
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def run(caller):
    """A function that starts an instance in the background, and returns its name."""
    yield lambda mode, *words: caller.ok("run", "-d", "--rm", "--mode", mode, *words).strip()
    caller.vmctl("down", "--all")


def gone(caller):
    """Return whether nothing is left of any instance."""
    folders = [os.path.join(caller.state, name) for name in ("instances", "leases")]
    return not any(os.listdir(folder) for folder in folders if os.path.exists(folder))


@pytest.mark.parametrize("mode", ["container", "host", "vm"])
def test_it_is_gone_after_its_end_and_its_watchers_know_how_it_ended(caller, run, mode):
    name = run(mode, "tiny", "--", "sh", "-c", SCRIPT)
    document = json.loads(caller.ok("inspect", name))[0]
    assert document["removes"]
    with (
        caller.start("wait", name) as waiter,
        caller.start("logs", "-f", name) as follower,
        caller.start("attach", "--no-stdin", name) as attached,
    ):
        record = os.path.join(document["directory"], "state.jsonl")
        wait_for(lambda: all(_has_open(process.pid, record) for process in (waiter, follower, attached)))
        caller.ok("exec", name, "touch", "/end")
        assert (waiter.communicate(), waiter.returncode) == ((b"7\n", b""), 7)
        assert (follower.communicate(), follower.returncode) == ((b"last words\n", b""), 0)
        attached.communicate()
        assert attached.returncode == 7
    wait_for(lambda: gone(caller))
    assert "there is no instance" in caller.refused("inspect", name)
    wait_for(lambda: _past(caller, name)[-2:] == [f"die {name} 7", f"destroy {name} "])
    assert _past(caller, name)[:2] == [f"create {name} ", f"start {name} "]


def _past(caller, name):
    """Return the lines of what has happened to an instance."""
    form = "{{.Action}} {{.Name}} {{.ExitCode}}"
    return caller.ok("events", "--until", "0s", "--filter", f"name={name}", "--format", form).splitlines()


def _has_open(pid, path):
    """Return whether a process, or a child of it, has a file open."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        pids = [pid, *map(int, file.read().split())]
    found = set()
    for one in pids:
        folder = f"/proc/{one}/fd"
        for fd in os.listdir(folder):
            try:
                found.add(os.readlink(f"{folder}/{fd}"))
            except FileNotFoundError:  # closed meanwhile
                continue
    return path in found or any(_has_open(child, path) for child in pids[1:])


@pytest.mark.parametrize(
    ("mode", "end"), [("container", "stop -t 0"), ("host", "kill"), ("container", "down"), ("host", "rm -f")]
)
def test_it_is_gone_after_each_way_to_end_it(caller, run, mode, end):
    name = run(mode, "tiny", "sleep", "1000")
    assert name in caller.ok(*end.split(), name)
    wait_for(lambda: gone(caller))


@pytest.mark.parametrize("mode", ["host"])
def test_a_restart_by_its_user_keeps_it(caller, run, mode):
    name = run(mode, "tiny", "sleep", "1000")
    before = json.loads(caller.ok("inspect", name))[0]
    caller.ok("restart", "-t", "0", name)
    after = json.loads(caller.ok("inspect", name))[0]
    assert (after["status"], after["removes"], after["starts"]) == ("running", True, 2)
    assert not _lives(before["journal"])
    caller.ok("stop", "-t", "0", name)
    wait_for(lambda: gone(caller))


def _lives(journal):
    found = [entry for entry in journal if entry["kind"] == "process"]
    return [entry["pid"] for entry in found if processes.alive(entry["pid"], entry["start"])]


@pytest.mark.parametrize("mode", ["container"])
def test_one_that_create_has_made(caller, run, mode):
    name = caller.ok("create", "--rm", "--mode", mode, "tiny", "--", "sh", "-c", "echo out; exit 3").strip()
    assert caller.ok("ps", "-aq") == f"{name}\n"  # it has not been started
    result = caller.vmctl("start", "-a", name)
    assert (result.code, result.out) == (3, "out\n"), result
    wait_for(lambda: gone(caller))


@QUICK
def test_the_next_listing_removes_it_if_the_process_that_had_to_was_killed(caller, run, mode):
    name = run(mode, "tiny", "sleep", "1000")
    document = json.loads(caller.ok("inspect", name))[0]
    for pid in [*_lives(document["journal"]), document["pid"]]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not _lives(document["journal"]))
    wait_for(lambda: caller.ok("ps", "-aq") == "")
    assert gone(caller)


def test_a_start_that_fails_leaves_nothing_and_a_file_can_ask_for_it(caller, run):
    path = caller.write("short.yaml", "image: tiny\ncommand: [sh, -c, 'exit 4']\nready: {tcp: 99}\n")
    assert "before it was ready" in caller.refused("up", "--rm", "--mode", "container", path)
    assert gone(caller)
    path = caller.write("lasting.yaml", "image: tiny\ncommand: [sleep, '1000']\n")
    assert caller.ok("up", "--rm", "--mode", "container", path) == "lasting\n"
    assert "lasting is removed when it has ended" in caller.refused("enable", "lasting")
    caller.ok("stop", "-t", "0", "lasting")
    wait_for(lambda: gone(caller))
    path = caller.write("stack.yaml", "services: {a: {image: tiny, command: [sleep, '1000']}}\n")
    assert "--rm is for one workload" in caller.refused("up", "--rm", path)
