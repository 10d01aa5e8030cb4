"""The log of events: what has happened to instances that are gone, and what damages or fills it."""

import json
import os
import stat
import subprocess
import time

import pytest
from support.commands import VMCTL, ok, refused, vmctl, wait_for

from vmctl import paths
from vmctl.cli import moments
from vmctl.instances import eventlog, eventreader, instance
from vmctl.spec.workload import Workload

PAST = ("events", "--since", "1h", "--until", "0s")
SHOWN = ("--format", "{{.Action}} {{.Name}} {{.ExitCode}}")
pytestmark = pytest.mark.usefixtures("own_root")


def past(*words):
    return [line.split() for line in ok(*PAST, *SHOWN, *words).splitlines()]


def noted(name="web", **values):
    """Return an instance that exists in this process only."""
    os.makedirs(paths.instances_root(), exist_ok=True)
    return instance.Instance(name, Workload(name, "tiny", **values), instance._new_state("container", {}, {}))


def actions():
    return [(event.action, event.name) for _, event in eventreader.read()]


def test_what_has_happened_to_an_instance_that_is_gone():
    before = time.time()
    assert vmctl("run", "--network", "none", "--name", "a", "tiny", "--", "sh", "-c", "exit 3").code == 3
    ok("run", "-d", "--network", "none", "--name", "b", "-l", "team=x", "tiny", "--", "sh", "-c", "exit 4")
    assert vmctl("wait", "b").code == 4
    ok("rename", "b", "c")
    ok("start", "-q", "c")
    assert vmctl("wait", "c").code == 4
    ok("rm", "c")
    of_b = [["create", "b"], ["start", "b"], ["die", "b", "4"]]
    of_c = [["rename", "c"], ["start", "c"], ["die", "c", "4"], ["destroy", "c"]]
    of_a = [["create", "a"], ["start", "a"], ["die", "a", "3"], ["destroy", "a"]]
    assert past() == [*of_a, *of_b, *of_c]
    assert past("--filter", "label=team") == [*of_b, *of_c]
    either = ("--filter", "event=rename", "--filter", "event=destroy", "--filter", "type=container")
    assert past(*either) == [["destroy", "a"], ["rename", "c"], ["destroy", "c"]]
    assert past("--filter", "container=a", "--filter", "event=die") == [["die", "a", "3"]]
    assert past("--filter", "type=image") == []
    first, *_, last = map(json.loads, ok(*PAST, "--format", "json").splitlines())
    assert before <= first["time_s"] <= last["time_s"] <= time.time()
    assert (last["mode"], last["image"], last["labels"]) == ("container", "tiny", {"team": "x"})
    since = ok("events", "--since", str(last["time_s"]), "--until", "0s", *SHOWN)
    assert since.split() == ["destroy", "c"]
    assert ok("events", "--until", str(last["time_s"]), *SHOWN).splitlines()[-1].split() == ["die", "c", "4"]
    assert stat.S_IMODE(os.stat(eventlog.path()).st_mode) == 0o600


@pytest.mark.parametrize("number", range(0, 10**6, 99_991))
def test_the_time_of_an_event_means_that_event(number):
    text = f"1790000000.{number:06d}"
    assert moments.parse_ns(text) == 1790000000 * 10**9 + number * 1000
    assert moments.parse_ns(text) / 10**9 == float(text)


def test_events_that_are_past_come_before_those_that_happen_now():
    ok("create", "--name", "a", "tiny", "--", "true")
    with subprocess.Popen([VMCTL, "events", "--since", "1h", *SHOWN], stdout=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout.readline().split() == ["create", "a"]
            ok("rm", "a")
            assert watch.stdout.readline().split() == ["destroy", "a"]
        finally:
            watch.kill()
    assert ok("events", "--until", str(time.time() + 0.5), *SHOWN).split() == ["create", "a", "destroy", "a"]


def test_times_that_are_refused():
    assert "--since: it is later than --until" in refused("events", "--since", "1m", "--until", "1h")
    for word in ("tomorrow", "-1", "1e400", ""):
        assert "expected a duration" in refused("events", f"--since={word}")


def test_the_end_that_two_commands_have_seen_is_one_event():
    inst = noted()
    inst.state.status, inst.state.starts, inst.state.exit_code, inst.state.exit_source = "exited", 1, 0, "workload"
    for _ in range(2):
        inst.noted = (1, False, False)
        eventlog.note_progress(inst)
    eventlog.note_removed(inst)
    assert actions() == [("die", "web"), ("destroy", "web")]
    with open(eventlog.path(), encoding="utf-8") as file:
        assert sum('"die"' in line for line in file) == 2


def test_damaged_and_hostile_lines_are_skipped_or_made_visible():
    inst = noted(labels={"note": "a\x1b]0;b\x07\nc"})
    eventlog.note(inst, "pause")
    with open(eventlog.path(), encoding="utf-8") as file:
        good = json.loads(file.readline())
    bad = [{"action": "boom"}, {"name": "../x"}, {"time_s": "now"}, {"time_s": True}, {"labels": {"a": 1}}]
    bad += [{"labels": [1]}, {"id": 3}, {"run": "x"}, {"exit_code": 1.5}, {"format": 2}, {"mode": None}]
    with open(eventlog.path(), "ab") as file:
        for change in bad:
            file.write(json.dumps({**good, **change}).encode() + b"\n")
        file.write(b'\x00\xff\n[]\n{"time_s": 1e999}\n' + b"[" * 100_000 + b"\n" + b'{"half": ')
    eventlog.note(inst, "unpause")
    with open(eventlog.path(), "ab") as file:
        file.write(json.dumps({**good, "action": "update", "later": [1]}).encode() + b"\n")
    assert [action for action, _ in actions()] == ["pause", "unpause", "update"]
    shown = ok(*PAST)
    assert shown.count("\n") == 3
    assert "\\x1b]0;b\\x07\\nc" in shown
    assert shown.isascii()


def test_many_who_write_make_two_files_of_limited_size_with_whole_lines(monkeypatch):
    monkeypatch.setattr(eventlog, "LIMIT_BYTES", 20_000)
    processes, each, pids = 4, 150, []
    for number in range(processes):
        if not (pid := os.fork()):
            try:
                for step in range(each):
                    eventlog.note(noted(f"p{number}-{step}"), "update")
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    sizes = {name: os.stat(os.path.join(paths.state_root(), name)).st_size for name in os.listdir(paths.state_root())}
    files = {name for name in sizes if name.startswith("events")}
    assert files == {"events.jsonl", "events.jsonl.1"}
    assert all(sizes[name] <= 21_000 for name in files)
    lines = 0
    for name in files:
        with open(os.path.join(paths.state_root(), name), "rb") as file:
            lines += sum(map(bool, map(bytes.strip, file)))  # a blank one: half of the line before was seen
    names = [name for _, name in actions()]
    assert len(set(names)) == len(names) == lines > 100


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_without_a_log_everything_starts_and_ends(kind, tmp_path):
    target = tmp_path / "target"
    make = {"folder": os.mkdir, "link": lambda path: os.symlink(target, path), "pipe": os.mkfifo}
    make[kind](eventlog.path())
    assert vmctl("run", "--network", "none", "tiny", "--", "sh", "-c", "exit 3").code == 3
    assert not target.exists()
    assert past() == []


def test_an_instance_that_cannot_be_read_is_removed_from_the_log_too():
    ok("create", "--name", "a", "tiny", "--", "true")
    with open(os.path.join(paths.instances_root(), "a", "state.jsonl"), "w", encoding="ascii") as file:
        file.write("x\n")
    ok("rm", "-f", "a")
    wait_for(lambda: past() == [["create", "a"], ["destroy", "a"]])
