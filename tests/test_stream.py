"""A program whose output is read while it runs: its end, when nobody wants the rest."""

import fcntl
import os
import select
import signal
import subprocess
import sys

import pytest
from support.commands import wait_for

from vmctl import stream
from vmctl.programs import CommandError


def left_early(script, *, keep=()):
    """Run a shell script until its first line, leave it, and return that line."""
    with stream.stream(["sh", "-c", script], dict(os.environ), keep=keep) as output:
        return output.read().decode().strip()


def free(path):
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_output_and_a_failure_are_read_to_the_end():
    errors = []
    with stream.stream(["sh", "-c", "echo out; echo err >&2"], dict(os.environ), errors.append) as output:
        assert output.read() == b"out\n"
        assert output.read() == b""
    assert errors == ["err"]
    with (
        pytest.raises(CommandError, match="code 3: the reason"),
        stream.stream(["sh", "-c", "echo the reason >&2; exit 3"], dict(os.environ)) as output,
    ):
        output.read()


def test_a_child_that_cleans_up_is_waited_for_when_the_program_has_ended(tmp_path):
    path = tmp_path / "cleaned"
    cleans_up = f"trap 'sleep 0.5; echo done >{path}; exit' TERM; echo up; while :; do sleep 0.01; done"
    assert left_early(f"({cleans_up}) & wait") == "up"
    assert path.read_text() == "done\n"


RUN = "from vmctl.programs import run; run(['sh', '-c', {script!r}])"
STREAM = """
import os
from vmctl.stream import stream
with stream(["sh", "-c", {script!r}], dict(os.environ)) as output:
    while output.read(): pass
"""


@pytest.mark.parametrize("code", [RUN, STREAM], ids=["run", "stream"])
def test_a_program_ends_when_its_caller_is_killed(code, tmp_path):
    path = tmp_path / "pid"
    script = f"echo $$ >{path}.new; mv {path}.new {path}; exec sleep 1000"
    caller = subprocess.Popen([sys.executable, "-c", code.format(script=script)])
    wait_for(path.exists)
    pidfd = os.pidfd_open(int(path.read_text()))
    caller.kill()
    caller.wait()
    ended, _, _ = select.select([pidfd], [], [], 30)
    if not ended:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert ended


def test_a_program_that_never_stops_writing_is_ended():
    assert left_early("exec yes").startswith("y")


def test_what_ignores_the_request_is_killed_with_its_children(tmp_path, monkeypatch):
    """Each holds the lock as long as it lives."""
    monkeypatch.setattr(stream, "_TERM_TIMEOUT_S", 0.2)
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert left_early("trap '' TERM; (while :; do sleep 1; done) & echo up; sleep 1000", keep=[lock]) == "up"
    os.close(lock)
    assert free(tmp_path / "lock")


def test_a_program_holds_what_is_kept_for_it_and_nothing_else(tmp_path):
    fds = [os.open(tmp_path / name, os.O_CREAT | os.O_RDWR) for name in ("kept", "other")]
    for fd in fds:
        fcntl.flock(fd, fcntl.LOCK_EX)
    with stream.stream(["sh", "-c", "echo up; sleep 1000"], dict(os.environ), keep=fds[:1]) as output:
        assert output.read() == b"up\n"
        for fd in fds:
            os.close(fd)
        assert (free(tmp_path / "kept"), free(tmp_path / "other")) == (False, True)
    assert free(tmp_path / "kept")
