"""The phases of a start: what is recorded, shown while it happens, and drawn afterwards."""

import json
import os
import re
import time
from types import SimpleNamespace

import pytest
from support.attack_table import modes
from support.commands import VMCTL, Terminal, ok, refused, start, vmctl, wait_for

from vmctl import phases
from vmctl.instances.timeline import Timeline
from vmctl.logs.logwriter import FirstBytes
from vmctl.spec.units import format_seconds
from vmm import marks


def test_a_phase_begins_where_the_one_before_has_ended():
    marks = {
        "begun": 100,
        "image": 150,
        "T0": 200,
        "T1": 250,
        "clone": 260,
        "exec": 300,
        "T5": 310,
        "T6": 400,
        "T7": 900,
    }
    found = [(lap.phase.name, lap.begin_ns, lap.end_ns) for lap in phases.laps(marks)]
    assert found == [
        ("image", 100, 150),
        ("plan", 150, 200),
        ("clone", 200, 260),
        ("exec", 260, 300),
        ("output", 300, 310),
        ("answer", 310, 400),
    ]
    assert phases.laps({}) == []
    assert phases.laps({"T6": 5}) == []
    assert [lap.phase.name for lap in phases.laps({"T0": 5, "T6": 5})] == ["plan", "answer"]  # of an earlier version


def test_each_phase_has_a_title_and_one_line_of_why():
    for name, phase in phases.PHASES.items():
        assert phase.name == name
        assert 0 < len(phase.title) <= 14
        assert 0 < len(phase.why) <= 90
        assert "\n" not in phase.why


EXPECTED = {
    "container": "image disk cable limits plan clone root mounts network exec",
    "host": "image disk cable limits plan clone root mounts exec",
    "vm": "image limits cable disk seed plan qemu firmware kernel layers settings network exec",
}
SPEC = "image: tiny\ncommand: [sh, -c, 'sleep 0.2; echo up; exec sleep 100000']\nready: {log: up, timeout: 250s}\n"


@modes("container", "vm", "host")
def test_each_phase_is_shown_with_its_time_and_recorded(caller, mode):
    """The ordinary user's are those of `run`, the first user's those of `up`."""
    name = f"phases-{mode}-{caller.name}"
    if caller.name == "root":
        shown = caller.vmctl("up", "--verbose", "--mode", mode, "--name", name, caller.write("phases.yaml", SPEC))
        assert shown.out == f"{name}\n"
    else:
        words = ("--verbose", "--keep", "--mode", mode, "--name", name, "tiny", "--", "sh", "-c", "echo up; exit 3")
        shown = caller.vmctl("run", *words)
        assert (shown.code, shown.out) == (3, "up\n")
    (start,) = json.loads(caller.ok("timeline", "--format", "json", name))
    bars = [bar for bar in start["bars"] if bar["name"] not in ("output", "answer")]
    assert [bar["name"] for bar in bars] == EXPECTED[mode].split()
    lines = [line for line in shown.err.splitlines() if line.startswith("  ")]
    titles = [line[2:].partition("  ")[0] for line in lines]
    assert titles[: len(bars)] == [bar["title"] for bar in bars]  # not the first output, which comes at any time
    for bar, line in zip(bars, lines, strict=False):
        assert format_seconds(bar["took_s"]) in line
    bars = start["bars"]
    assert [bar["begin_s"] for bar in bars[1:]] == [bar["end_s"] for bar in bars[:-1]]
    assert [bar["preparation"] for bar in bars] == sorted((bar["end_s"] <= 0 for bar in bars), reverse=True)
    if caller.name == "root":
        assert bars[-1]["name"] == "answer"
        assert bars[-1]["end_s"] == start["ready_s"]
        assert f"after {format_seconds(start['ready_s'])}" in shown.err
    drawn = caller.ok("timeline", name).splitlines()
    assert drawn[0].startswith(f"{name}: {mode}")
    assert len(drawn) == 2 + len(bars)
    caller.ok("rm", "-f", name)


def test_a_terminal_shows_phases_and_quiet_does_not(own_root, tmp_path):
    spec = tmp_path / "seen.yaml"
    spec.write_text(SPEC)
    code, output = Terminal("up", str(spec)).end()
    assert code == 0, output
    assert [title for title in ("image  ", "clone3  ", "first answer  ") if title not in output] == []
    assert output.endswith("\n")
    ok("down", "seen")
    code, output = Terminal("up", "--quiet", str(spec)).end()
    assert code == 0, output
    assert "clone3" not in output
    ok("down", "seen")
    result = vmctl("up", str(spec))
    assert (result.code, result.err.count("\n")) == (0, 1), result
    ok("down", "seen")


STACK = """
name: pair
services:
  db: {image: tiny, network: none, command: [sh, -c, "echo up; exec sleep 100000"], ready: {log: up}}
  long-name: {image: tiny, network: none, command: [sleep, "100000"], depends_on: [db]}
"""


def phases_of(name, shown):
    """Return the titles in the lines that begin with the name of an instance, and blanks."""
    return re.findall(rf"^{name} +([a-zA-Z0-9]+(?: [a-z]+)*)  +[0-9.]+ [mµ]?s\b", shown, re.MULTILINE)


def test_each_service_of_a_stack_shows_its_phases(own_root, tmp_path):
    path = str(tmp_path / "stack.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(STACK)
    result = vmctl("up", "--verbose", path)
    assert result.out == "pair-db\npair-long-name\n"
    for name, service in (("pair-db", "db"), ("pair-long-name", "long-name")):
        expected = [phases.PHASES[one].title for one in EXPECTED["container"].split()]
        found = [title for title in phases_of(name, result.err) if title != "first output"]
        assert found == [*expected, *(["first answer"] if service == "db" else [])], result.err
        assert f"{name} is ready in mode container" in result.err
    assert phases_of("pair-db", vmctl("up", "--verbose", path).err) == []  # unchanged
    ok("down", path)
    assert phases_of("pair-db", vmctl("up", path).err) == []  # a pipe
    ok("down", path)
    for columns, shows in ((100, True), (40, False)):
        terminal = Terminal("-c", f"read go; stty cols {columns}; exec {VMCTL} up {path}", program="/bin/sh")
        terminal.type("\n")  # the size is that of the constructor until then
        code, shown = terminal.end()
        assert code == 0
        shown = re.sub(r"\x1b\[2K|\r", "", shown)
        assert ("clone3" in phases_of("pair-db", shown)) == shows, shown
        ok("down", path)


def test_starts_on_one_scale(own_root, tmp_path):
    for name in ("one", "two"):
        ok("run", "-d", "--name", name, "tiny", "--", "sleep", "1000")
    apart = json.loads(ok("timeline", "--clock", "--format", "json", "two", "one"))
    assert apart[1]["zero_s"] == 0 < apart[0]["zero_s"]
    both = json.loads(ok("timeline", "--all", "--format", "json"))
    assert [start["zero_s"] for start in both] == [0, 0]
    page = ok("timeline", "--format", "html", "one", "two")
    assert page.count("<rect ") == sum(len(start["bars"]) for start in both)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    drawn = vmctl("timeline", "one", "two", env={**os.environ, "COLUMNS": "40"}).out.splitlines()
    assert max(map(len, drawn)) <= 40
    ok("create", "--name", "three", "tiny", "--", "true")
    assert "three has not been started" in refused("timeline", "one", "three")
    assert len(json.loads(ok("timeline", "--all", "--format", "json"))) == 2
    assert "there is no instance four" in refused("timeline", "four")
    ok("rm", "-f", "one", "two", "three")


@pytest.mark.parametrize("uptime", ["0.10", "3.00", "999999.99", "1e9", "-1.00", ""])
def test_the_clock_of_a_guest_is_believed_only_if_it_is_possible(uptime):
    inst = SimpleNamespace(timeline=Timeline({"T1": 10**9}))
    marks.note_phases(inst, [marks.Mark(f"init 6.1.0 {'0' * 36} {'1' * 36} {uptime}", 3 * 10**9)])
    assert inst.timeline.marks_ns["kernel"] == 3 * 10**9
    begun_ns = inst.timeline.marks_ns.get("firmware")
    assert begun_ns == (2_900_000_000 if uptime == "0.10" else None)


def test_the_first_bytes_have_their_times(tmp_path):
    log = FirstBytes(str(tmp_path / "marks"), 12)
    before_ns = time.monotonic_ns()
    for data in (b"init", b"\nmo", b"unts\nmore", b"lost"):
        log.write(data)
    assert (tmp_path / "marks").read_bytes() == b"init\nmounts\n"
    sizes, times = zip(
        *(map(int, line.split()) for line in (tmp_path / "marks.ends").read_text().splitlines()), strict=True
    )
    assert sizes == (4, 7, 12)
    assert before_ns <= times[0] <= times[1] <= times[2] <= time.monotonic_ns()


def test_the_messages_of_the_kernel(guest_root, tmp_path):
    """They are written when the workload runs; with `console: live` before the guest's init has begun."""
    live = tmp_path / "live.yaml"
    live.write_text("image: tiny\ncommand: [sleep, '1000']\nnetwork: none\nvm: {console: live}\n")
    ok("up", "--no-wait", "--mode", "vm", str(live))
    following = start("logs", "--boot", "-f", "live", text=True)
    for line in following.stdout:
        if "Linux version" in line:
            break
    (shown,) = json.loads(ok("timeline", "--format", "json", "live"))
    assert [bar["name"] for bar in shown["bars"]][-1] == "qemu"
    ok("rm", "-f", "live")
    following.communicate(timeout=60)
    ok("run", "-d", "--name", "late", "--mode", "vm", "--network", "none", "tiny", "--", "sleep", "1000")
    console = wait_for(lambda: "Run /init" in (text := ok("logs", "--boot", "late")) and text)
    assert console.count("Linux version") == 1
    assert " quiet " in console
    ok("rm", "-f", "late")
