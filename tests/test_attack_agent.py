"""A guest that has taken over its agent, against the recorder on the host. This process plays the guest."""

import os
import socket

import pytest

from vmctl.attach import frames
from vmm import recorder

MIB = 1 << 20


def memory_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def guest(tmp_path):
    """A recorder, and the guest's end of the port after its greeting; a function that connects as `vmctl exec` does."""
    fifo, path, port = str(tmp_path / "from-log"), str(tmp_path / "agent"), str(tmp_path / "port")
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(port)
        server.listen()
        pid, go = recorder.start([(fifo, str(tmp_path / "log"), MIB, False)], (path, port))
        log = os.open(fifo, os.O_WRONLY)
        os.write(go, b"g")
        os.close(go)
        os.write(log, b"the guest's first output\n")
        agent, _ = server.accept()
        agent.settimeout(60)
        agent.sendall(frames.frame(0, frames.HELLO, bytes(frames.NONCE_BYTES)))
        assert agent.recv(100)[4] == frames.SYNC

        arrived = bytearray()

        def connect():
            command = socket.socket(socket.AF_UNIX)
            command.connect(path)
            command.sendall(frames.frame(0, frames.REQUEST, b"x"))
            while True:  # answers to greetings come first
                for channel, kind, _ in frames.take(arrived):
                    if kind == frames.REQUEST:
                        return command, channel
                arrived.extend(agent.recv(1 << 16))

        yield pid, agent, connect
        agent.close()
    os.close(log)
    os.waitpid(pid, 0)


@pytest.mark.attack(
    "sends output without end to a command that does not read, so that the host's memory fills", mode="vm", who="root"
)
def test_output_without_end(guest):
    pid, agent, connect = guest
    command, channel = connect()
    other, second = connect()
    before = memory_bytes(pid)
    flood = frames.frame(channel, frames.OUTPUT, bytes(frames.PAYLOAD_BYTES)) * 64
    for _ in range(64):  # 64 MiB
        agent.sendall(flood)
    agent.sendall(frames.frame(second, frames.OUTPUT, b"still served"))
    assert other.recv(100)[8:] == b"still served"
    assert memory_bytes(pid) - before < 8 * MIB
    command.close()


@pytest.mark.attack("greets without end and reads no answer, so that the host's memory fills", mode="vm", who="root")
def test_greetings_without_end(guest):
    pid, agent, connect = guest
    command, _ = connect()
    before = memory_bytes(pid)
    greetings = frames.frame(0, frames.HELLO, bytes(frames.NONCE_BYTES)) * 1000
    for _ in range(500):
        agent.sendall(greetings)
    assert memory_bytes(pid) - before < 4 * MIB
    assert command.recv(100) == b""  # an agent that begins anew has no commands
