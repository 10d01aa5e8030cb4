"""Streams of attached commands that are copied: order, end, position, errors and signals."""

import os
import subprocess
import time
from threading import Thread

import pytest
from support.commands import VMCTL, Terminal, ok, passes_signals_on, vmctl

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("own_root")]
RUN = [VMCTL, "run", "--network", "none", "tiny", "--"]


def test_the_next_program_reads_what_the_workload_has_not_read(tmp_path):
    """As in `while read -r line; do vmctl run ...; done <list`."""
    (tmp_path / "list").write_text("first\nsecond\nthird\n")
    script = 'while read -r line; do "$@" echo "got $line"; done'
    with open(tmp_path / "list") as file:
        seen = subprocess.run(["sh", "-c", script, "sh", *RUN], stdin=file, capture_output=True, text=True)
    assert seen.stdout == "got first\ngot second\ngot third\n"


def test_a_workload_reads_a_part_of_a_file(tmp_path):
    (tmp_path / "data").write_bytes(bytes(range(256)) * 4096)
    with open(tmp_path / "data", "rb", buffering=0) as file:
        seen = subprocess.run([*RUN, "dd", "bs=1000", "count=7"], stdin=file, capture_output=True)
        assert len(seen.stdout) == file.tell() == 7000


def test_large_files(tmp_path):
    content = os.urandom(1 << 20) * 16
    (tmp_path / "in").write_bytes(content)
    with open(tmp_path / "in") as source, open(tmp_path / "out", "w") as target:
        assert subprocess.run([*RUN, "cat"], stdin=source, stdout=target).returncode == 0
    assert (tmp_path / "out").read_bytes() == content


def test_both_outputs_to_one_file_keep_their_order(tmp_path):
    script = "for n in 0 1 2 3 4 5 6 7 8 9; do echo $n; echo $n >&2; done"
    with open(tmp_path / "log", "w") as log:
        subprocess.run([*RUN, "sh", "-c", script], stdout=log, stderr=log, check=True)
    assert (tmp_path / "log").read_text() == "".join(f"{n}\n{n}\n" for n in range(10))


def test_output_that_cannot_be_written_is_an_error():
    with open("/dev/full", "w") as full:
        seen = subprocess.run(
            [*RUN, "sh", "-c", "echo lost; sleep 0.2; echo more"], stdout=full, stderr=subprocess.PIPE
        )
    assert seen.returncode == 125
    assert b"vmctl: the output could not be written: No space left on device\n" in seen.stderr


def test_the_end_of_a_workload_that_leaves_its_input(tmp_path):
    with open("/dev/zero") as endless:
        assert subprocess.run([*RUN, "head", "-c", "10"], stdin=endless, capture_output=True).stdout == bytes(10)


def test_a_process_that_stays_does_not_keep_exec(tmp_path):
    (tmp_path / "web.yaml").write_text("image: tiny\nnetwork: none\ncommand: [sleep, '1000']\n")
    ok("up", "-q", str(tmp_path / "web.yaml"))
    try:
        with open(tmp_path / "out", "w") as out:  # a file, so it is copied
            command = [VMCTL, "exec", "web", "--", "sh", "-c", "echo begin; (while :; do echo later; done) & exit 3"]
            assert subprocess.run(command, stdout=out, stderr=out, timeout=60).returncode == 3
        assert (tmp_path / "out").read_text().startswith("begin\n")
        script = "(trap '' HUP; setsid sleep 1000) & echo begin; exit 4"
        assert Terminal("exec", "-t", "web", "--", "sh", "-c", script).end()[0] == 4
    finally:
        vmctl("rm", "-f", "web")


def test_a_large_paste_into_a_workload_that_writes_first():
    """Neither side may wait for the other."""
    script = "stty raw -echo; head -c 300000 /dev/zero | tr '\\0' x; echo ready; head -c 100000 | wc -c"
    terminal = Terminal("run", "-t", "--network", "none", "tiny", "--", "sh", "-c", script)
    terminal.read_until(
        "xxx"
    )  # before, the terminal is not in raw mode, and a line has at most 4095 bytes (termios(3))
    Thread(target=lambda: [terminal.type("y" * 1000) for _ in range(100)], daemon=True).start()
    code, output = terminal.end()
    assert code == 0
    assert output.rstrip().endswith("100000")


def test_ctrl_c_reaches_the_children(tmp_path):
    """Also of a first process that has no handler for it."""
    terminal = Terminal(
        "run", "--network", "none", "tiny", "--", "sh", "-c", "echo ready; sleep 1000; echo gone on; exit 7"
    )
    terminal.read_until("ready")
    passes_signals_on(terminal.pid)
    terminal.type("\x03")
    code, _ = terminal.end()
    assert code in (7, 130)


def test_a_job_in_the_background_does_not_stop_at_input():
    script = '"$@" sh -c "sleep 1; echo done" & read -r line; echo "shell: $line"; wait $!; echo "code $?"'
    terminal = Terminal("-ic", script, "bash", *RUN, program="/bin/bash")
    time.sleep(0.5)
    terminal.type("typed\n")
    _, output = terminal.end()
    assert "shell: typed" in output
    assert "code 0" in output


def test_resizing_without_end():
    terminal = Terminal("run", "-t", "--network", "none", "tiny", "--", "sh", "-c", "echo ready; sleep 1; stty size")
    terminal.read_until("ready")
    for n in range(2000):
        terminal.resize(20 + n % 30, 80)
    terminal.resize(33, 99)
    code, output = terminal.end()
    assert code == 0
    assert "33 99" in output
