"""Both streams of a workload, and several logs, in the order in which their lines were written, with times."""

import os
import random
import re
import subprocess
import time
from datetime import UTC, datetime

import pytest
from support.commands import VMCTL, Result

from vmctl.logs import timed, timewriter
from vmctl.logs.logwriter import Log

SCRIPT = "for i in 1 2 3; do echo out $i; sleep 0.3; echo err $i >&2; sleep 0.3; done; printf 'no end'"
LINES = [f"{stream} {i}" for i in range(1, 4) for stream in ("out", "err")] + ["no end"]
STAMP = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) "


@pytest.fixture(scope="module")
def name(caller, mode):
    """An instance that has written to both streams in turn."""
    path = caller.write("turns.yaml", f"name: turns\nimage: tiny\ncommand: [sh, -c, {SCRIPT!r}]\n")
    caller.ok("up", "-q", "--mode", mode, path)
    caller.ok("wait", "turns", timeout_s=120)
    yield "turns"
    caller.ok("down", "turns")


def together(caller, *words):
    """Run `vmctl logs` with one pipe as both streams and return its lines."""
    options = {"env": dict(os.environ)}
    command = [VMCTL, "logs", *words]
    if caller.uid:
        command, options = caller.user.command(*command)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, **options)
    return done.stdout.splitlines()


def test_the_order_of_lines(caller, name):
    assert together(caller, name) == LINES
    assert together(caller, "-f", name) == LINES
    assert together(caller, "-n", "3", name) == LINES[-3:]
    assert together(caller, "--tail", "all", name) == LINES
    result = caller.vmctl("logs", name)
    assert result == Result(0, "".join(f"out {i}\n" for i in range(1, 4)) + "no end", LINES_OF_STDERR)


LINES_OF_STDERR = "".join(f"err {i}\n" for i in range(1, 4))


def test_marks_and_times(caller, name):
    marked = together(caller, "-t", "--streams", name, name)
    assert len(marked) == 2 * len(LINES)
    found = [re.fullmatch(rf"turns \| (stdout|stderr) {STAMP}(.*)", line).groups() for line in marked]
    assert found[::2] == found[1::2]
    assert {(stream, text[:3]) for stream, _, text in found} == {
        ("stdout", "out"),
        ("stderr", "err"),
        ("stdout", "no "),
    }
    times = [datetime.fromisoformat(stamp) for _, stamp, _ in found]
    assert times == sorted(times)
    assert abs((datetime.now(UTC) - times[-1]).total_seconds()) < 600
    assert 1.5 < (times[-1] - times[0]).total_seconds() < 30
    middle = next(stamp for _, stamp, text in found if text == "err 2")
    since, until = together(caller, "--since", middle, name), together(caller, "--until", middle, name)
    assert until + since == LINES
    assert since[0] == "err 2"
    assert together(caller, "--since", "1h", name) == LINES
    assert together(caller, "--until", "1h", name) == []
    assert "expected a duration" in caller.refused("logs", "--since", "soon", name)


@pytest.mark.parametrize("seed", range(10))
def test_random_writes_to_both_logs_come_in_order(tmp_path, monkeypatch, seed):
    chance, clock = random.Random(seed), 1_700_000_000_000_000_000

    def now():
        return clock

    monkeypatch.setattr(timewriter.time, "time_ns", now)
    paths = [str(tmp_path / name) for name in ("stdout.log", "stderr.log")]
    logs, written = [Log(path, 4000) for path in paths], []
    for number in range(2000):
        clock += chance.randrange(0, 20_000_000)
        which = chance.randrange(2)
        lines = [f"{which} {number} {part}".ljust(50, ".") for part in range(chance.randrange(1, 3))]
        logs[which].write("".join(f"{line}\n" for line in lines).encode())
        written += lines
    found = read(paths)
    for which in "01":  # each log has its newest lines
        assert [line for line in written if line[0] == which][-len([1 for line in found if line[0] == which]) :] == [
            line for line in found if line[0] == which
        ]
    assert [line for line in written if line in set(found)] == found
    for path in paths:
        for part in (path, f"{path}.1"):
            assert os.path.getsize(part + timewriter.SUFFIX) <= 2000 + timewriter.RECORD_BYTES


def read(paths):
    logs = [timed.TimedLog(path) for path in paths]
    found = b"".join(piece.data for _, piece in timed.available(logs, final=True))
    for log in logs:
        log.close()
    return found.decode().splitlines()


def test_logs_without_times_come_one_after_the_other(tmp_path):
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for number in range(3):
        for path in paths:
            with open(path, "a", encoding="ascii") as file:
                file.write(f"{path[-1]}{number}\n")
    assert read(paths) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    log = Log(paths[0], 4000)  # a later vmctl goes on with it
    log.write(b"a3\n")
    assert read(paths) == ["a0", "a1", "a2", "b0", "b1", "b2", "a3"]


@pytest.mark.parametrize("damage", [b"", b"x", b"vmctl-t1" + b"\xff" * 8, b"\xff" * 1000, os.urandom(999)])
def test_damaged_times_cost_only_the_order(tmp_path, damage):
    path = str(tmp_path / "log")
    log = Log(path, 4000)
    log.write(b"one\n")
    with open(path + timewriter.SUFFIX, "r+b") as file:
        file.truncate(0)
        file.write(damage)
    log.write(b"two\n")
    assert read([path]) == ["one", "two"]


def test_times_of_a_chatty_stream_take_little(tmp_path):
    log = Log(str(tmp_path / "log"), 1 << 30)
    begin = time.monotonic()
    for _ in range(100_000):
        log.write(b"x\n")
    took = time.monotonic() - begin
    assert os.path.getsize(tmp_path / "log.times") <= 16 * (3 + took / 0.01)
