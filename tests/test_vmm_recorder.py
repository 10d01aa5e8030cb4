"""The recorder of a guest: what it keeps of each stream, and when it ends. QEMU's part is played by this process."""

import os
import time

import pytest

from vmctl.linux import processes
from vmm import recorder

LIMIT = 1 << 17


@pytest.fixture
def streams(tmp_path):
    """A recorder of a log and of marks that waits for its go, its pid, and the paths of FIFOs and files."""
    paths = {name: (tmp_path / f"from-{name}", tmp_path / name) for name in ("log", "marks")}
    for fifo, _ in paths.values():
        os.mkfifo(fifo)
    wanted = [(str(fifo), str(file), LIMIT, name == "marks") for name, (fifo, file) in paths.items()]
    pid, go = recorder.start(wanted)
    yield pid, go, paths
    if processes.alive(pid, processes.start_time(pid)):
        os.kill(pid, 9)
    os.waitpid(pid, 0)


def opened(paths):
    return {name: os.open(fifo, os.O_WRONLY) for name, (fifo, _) in paths.items()}


def wait_until_gone(pid):
    deadline = time.monotonic() + 60
    while processes.alive(pid, processes.start_time(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def fill(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def test_the_end_of_a_log_and_the_beginning_of_the_marks_are_kept(streams):
    pid, go, paths = streams
    ends = opened(paths)
    os.write(go, b"g")
    os.close(go)
    lines = b"".join(b"line %07d\n" % number for number in range(100_000))  # 1.3 MB
    for fd in ends.values():
        fill(fd, lines)
    for fd in ends.values():
        os.close(fd)
    wait_until_gone(pid)
    _, log = paths["log"]
    newer, older = log.read_bytes(), log.with_name("log.1").read_bytes()
    assert (older + newer) == lines[-len(older + newer) :]
    assert LIMIT // 2 <= len(older + newer) <= LIMIT + 2 * recorder.BLOCK_BYTES
    assert paths["marks"][1].read_bytes() == lines[:LIMIT]
    assert {file.stat().st_mode & 0o777 for file in (log, log.with_name("log.1"), paths["marks"][1])} == {0o600}


def test_it_does_nothing_before_it_is_recorded(streams):
    pid, go, paths = streams
    ends = opened(paths)  # does not wait: there is a reader already
    os.close(go)
    wait_until_gone(pid)
    assert not paths["log"][1].exists()
    for fd in ends.values():
        os.close(fd)


def test_a_full_disk_stops_neither_it_nor_the_guest(streams, tmp_path):
    pid, go, paths = streams
    os.symlink("/dev/full", paths["log"][1])
    ends = opened(paths)
    os.write(go, b"g")
    os.close(go)
    for fd in ends.values():
        fill(fd, b"x" * 1_000_000)
    for fd in ends.values():
        os.close(fd)
    wait_until_gone(pid)
    assert paths["marks"][1].stat().st_size == LIMIT


def test_signals_for_the_group_do_not_end_it(streams):
    pid, go, paths = streams
    ends = opened(paths)
    os.write(go, b"g")
    os.close(go)
    os.write(ends["marks"], b"init\n")
    deadline = time.monotonic() + 60
    while not (paths["marks"][1].exists() and paths["marks"][1].read_bytes() == b"init\n"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert os.getsid(pid) == pid  # it has no terminal of its caller
    for signum in (1, 2, 15):
        os.kill(pid, signum)
    os.write(ends["marks"], b"exec\n")
    for fd in ends.values():
        os.close(fd)
    wait_until_gone(pid)
    assert paths["marks"][1].read_bytes() == b"init\nexec\n"
