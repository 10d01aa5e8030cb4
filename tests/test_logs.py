"""Logs: bounded, rotated, read from the end, followed across rotations, and never in the way of the workload."""

import os
import random
import resource
import subprocess
import time
from pathlib import Path

import pytest
from support.commands import VMCTL, ok, refused, start, vmctl, wait_for

from vmctl import paths
from vmctl.logs.logfile import LogReader, last_bytes
from vmctl.logs.logwriter import Log
from vmctl.programs import run

EACH_MODE = pytest.mark.parametrize("mode", ["container", "host"])
COUNTING = "i=0; while [ $i -lt {0} ]; do echo line $i; i=$((i+1)); done"


@pytest.fixture
def up(own_root, tmp_path):
    """Start a shell script in an instance named `logs`; it is removed afterwards."""

    def up(script, mode="container", **keys):
        lines = [f"{key}: {value}" for key, value in keys.items()]
        (tmp_path / "logs.yaml").write_text("\n".join(["image: tiny", f"command: [sh, -c, '{script}']", *lines]))
        return ok("up", "--quiet", "--mode", mode, str(tmp_path / "logs.yaml")).strip()

    yield up
    vmctl("rm", "-f", "logs")


@EACH_MODE
def test_the_newest_output_is_kept(up, mode):
    up(COUNTING.format(100_000), mode, logs="{size: 1M}")
    ok("wait", "logs")
    kept = ok("logs", "logs").splitlines()
    assert kept[-1] == "line 99999"
    assert kept == [f"line {number}" for number in range(int(kept[0].split()[1]), 100_000)]
    files = [os.path.join(paths.instances_root(), "logs", name) for name in ("stdout.log", "stdout.log.1")]
    assert 400_000 < sum(map(os.path.getsize, files)) <= (1 << 20) + (128 << 10)  # each part may end with one read more
    assert ok("logs", "--tail", "3", "logs") == "line 99997\nline 99998\nline 99999\n"
    many = ok("logs", "--tail", "40000", "logs").splitlines()  # from the older part on
    assert (len(many), many[0]) == (40_000, "line 60000")


def test_follow(up):
    up(f"sleep 1; {COUNTING.format(100_000)}", logs="{size: 512K}")
    assert ok("logs", "--follow", "logs") == "".join(f"line {number}\n" for number in range(100_000))


@pytest.mark.parametrize(("size", "message"), [("1K", "expected at least 128K"), ("-1", "expected a size")])
def test_impossible_sizes_are_refused(own_root, tmp_path, size, message):
    (tmp_path / "w.yaml").write_text(f'image: tiny\nlogs: {{size: "{size}"}}\n')
    assert message in refused("up", str(tmp_path / "w.yaml"))


def test_the_tail_of_a_large_log_takes_no_memory_and_no_time(up):
    up("true")
    ok("wait", "logs")
    path = os.path.join(paths.instances_root(), "logs", "stdout.log")
    os.truncate(path, 2 << 30)  # sparse
    with open(path, "a") as file:
        file.write("\n" + "".join(f"line {number}\n" for number in range(100)))
    begin = time.monotonic()
    done = subprocess.run(
        [VMCTL, "logs", "--tail", "5", "logs"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (256 << 20, 256 << 20)),
    )
    assert done.stdout == "".join(f"line {number}\n" for number in range(95, 100)), done.stderr
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("seed", range(20))
def test_a_reader_sees_what_any_writer_writes(tmp_path, seed):
    chance = random.Random(seed)
    path = str(tmp_path / "log")
    log, reader, written, seen = Log(path, 5000), LogReader(path), b"", b""
    for _ in range(300):
        data = chance.randbytes(chance.randrange(2000)).replace(b"\n", b"") + b"\n" * chance.randrange(3)
        log.write(data)
        written += data
        while chance.random() < 0.9 and (part := reader.read()):
            seen += part
    while part := reader.read():
        seen += part
    assert seen == written
    kept = b"".join(Path(path + suffix).read_bytes() for suffix in (".1", ""))
    assert written.endswith(kept)
    assert 5000 <= len(kept) <= 14_000
    lines = chance.randrange(1, 400)
    reader.skip_to_tail(lines)
    tail = b"".join(iter(reader.read, b""))
    assert tail == _last_lines(kept, lines)
    reader.close()


def _last_lines(content, lines):
    parts = content.split(b"\n")
    ended = parts[-1] == b""
    return b"\n".join(parts[-lines - ended :])


def test_a_reader_of_nothing(tmp_path):
    reader = LogReader(str(tmp_path / "log"))
    reader.skip_to_tail(3)
    assert reader.read() == b""
    (tmp_path / "log").write_bytes(b"later\n")
    assert reader.read() == b"later\n"
    assert reader.read() == b""
    reader.skip_to_tail(0)
    assert reader.read() == b""
    reader.close()
    assert last_bytes(str(tmp_path / "absent"), 10) == b""
    assert last_bytes(str(tmp_path / "log"), 3) == b"er\n"


@pytest.fixture
def full_disk(tmp_path):
    """A VMCTL_ROOT on a file system of 12 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)])
    yield folder
    run(["umount", "-l", str(folder)])


@EACH_MODE
def test_a_full_disk_loses_output_says_so_and_holds_nothing_up(full_disk, tmp_path, monkeypatch, mode):
    ok("image", "export", "tiny", "-o", str(tmp_path / "tiny.tar"))
    monkeypatch.setenv("VMCTL_ROOT", str(full_disk / "root"))
    ok("image", "import", str(tmp_path / "tiny.tar"), "--name", "tiny")
    (tmp_path / "full.yaml").write_text(
        "image: tiny\ncommand: [sh, -c, 'yes | head -c 30000000; : >/dev/over; while [ ! -e /go ]; do sleep 0.1; done;"
        " echo more; exit 3']\n"
    )
    try:
        ok("up", "--quiet", "--mode", mode, str(tmp_path / "full.yaml"))
        ballast = full_disk / "root" / "lib" / "instances" / "full" / "stdout.log"
        wait_for(lambda: os.statvfs(full_disk).f_bavail == 0)
        wait_for(lambda: vmctl("exec", "full", "--", "test", "-e", "/dev/over").code == 0)
        with open(ballast, "r+b") as file:
            file.truncate(1 << 20)
        ok("exec", "full", "--", "touch", "/go")
        assert vmctl("wait", "full").out == "3\n"
        said = ok("logs", "full")
        assert said.endswith("more\n")
        assert "bytes of output are lost here, the log could not be written]" in said
    finally:
        ok("rm", "-f", "full")


def test_lost_output_is_noted_even_if_the_disk_stays_full(full_disk):
    log = Log(str(full_disk / "log"), 64 << 20)
    for _ in range(300):
        log.write(b"x" * 65535 + b"\n")
    assert log.lost > 1 << 20
    log.finish()
    assert log.lost == 0
    assert b"bytes of output are lost here" in last_bytes(str(full_disk / "log"), 200)


def test_a_workload_that_outlives_the_first_process_cannot_keep_the_supervisor_busy(up):
    up("(trap : HUP TERM; exec setsid yes) & sleep 0.5; exit 3", "host", logs="{size: 128K}")
    begin = time.monotonic()
    assert vmctl("wait", "logs").out == "3\n"
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("script", "pattern"),
    [('printf %060d 0 | tr 0 a; echo "!"; sleep 60', "(a+)+$"), ("while :; do printf a; sleep 0.01; done", "(a+)+!$")],
)
def test_a_regular_expression_ends_at_the_time_limit(up, script, pattern):
    begin = time.monotonic()
    with pytest.raises(AssertionError, match="was not ready"):
        up(script, ready=f'{{log: "{pattern}", timeout: 2s}}')
    assert time.monotonic() - begin < 100  # without the limit it never ends


def test_a_match_may_begin_in_earlier_output(up):
    up("printf rea; sleep 0.3; printf dy; sleep 0.3; echo; sleep 1000", ready='{log: "^ready$", timeout: 20s}')


def test_interrupting_follow(up):
    up("echo up; sleep 1000")
    follower = start("logs", "--follow", "logs")
    assert follower.stdout.readline() == b"up\n"
    follower.terminate()
    assert follower.wait(60) == 143
