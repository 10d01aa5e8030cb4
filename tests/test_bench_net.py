"""The network's probe against servers with a known delay, a known number of bytes, and failures."""

import os
import socket
import struct
import subprocess

import pytest
from support.commands import free_port, wait_for
from support.probes import started

from bench.probes import Request, net, tool
from vmctl import backends
from vmctl.errors import DeadlineError, SpecError, VmctlError
from vmctl.instances import instance
from vmctl.spec.workload import Ready, Seconds, Workload

MODES = sorted(backends.modes())
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)
TINY = Workload(name="net", image="tiny")


@pytest.fixture
def work(own_root):
    return net.prepare(TINY._replace(name=f"net-{os.urandom(3).hex()}"))


@pytest.fixture
def server():
    """Run the server as a child process, and return its port."""
    port = free_port()
    with subprocess.Popen([tool.program(), "serve", str(port)]) as child:
        wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), timeout_s=120)
        yield port
        child.kill()


def connected(port, wanted):
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.sendall(wanted)
    return connection


@EACH_QUICK_MODE
def test_a_server_that_answers_after_200_ms(work, mode):
    with started(net.serving(work, delay_ms=200), mode) as start:
        inst = start.inst
        found_s = net.ping(inst, discarded=1, counted=4)
    assert len(found_s) == 4
    assert all(seconds >= 0.2 for seconds in found_s)
    assert min(found_s) < 2


@pytest.fixture
def unhurried(monkeypatch):
    """Time for all requests, also on a host that has much else to do."""
    monkeypatch.setattr(net, "PING_S", 100.0)
    monkeypatch.setattr(net, "ANSWER_S", 100.0)


@EACH_QUICK_MODE
def test_every_question_gets_an_answer(work, unhurried, mode):
    seen = net.observe(Request(work, "net-sample", mode))
    assert len(seen.series["latency_s"]) == net.COUNTED
    assert all(0 < seconds < 100 for seconds in seen.series["latency_s"])
    assert seen.values.keys() == {"from_bytes_s", "to_bytes_s"}
    assert all(rate > 1e4 for rate in seen.values.values())
    shared = not backends.load(mode).features.own_network
    assert seen.texts["path"] == ("loopback of the host" if shared else "bridge and veth pair")
    assert instance.names() == []


def test_a_container_in_the_hosts_network(own_root, unhurried):
    seen = net.observe(Request(net.prepare(TINY._replace(network="host")), "net-shared", "container"))
    assert seen.texts["path"] == "loopback of the host"
    assert len(seen.series["latency_s"]) == net.COUNTED


def test_slow_requests_are_fewer(work, monkeypatch):
    """All requests together have a time limit; the ones before it are kept."""
    monkeypatch.setattr(net, "PING_S", 0.5)
    with started(net.serving(work, delay_ms=50), "container") as start:
        inst = start.inst
        assert 1 <= len(net.ping(inst, discarded=0)) <= 11


def test_the_server_counts_what_it_takes(server):
    with connected(server, b"u") as connection:
        connection.sendall(bytes(10 * 1024**2 + 3))
        connection.shutdown(socket.SHUT_WR)
        assert struct.unpack("<Q", connection.recv(8, socket.MSG_WAITALL)) == (10 * 1024**2 + 3,)


def test_the_server_goes_on_after_any_client(server):
    for wanted in (b"", b"x", b"p", b"p123", b"d", b"u"):
        connected(server, wanted).close()
    with connected(server, b"p") as connection:
        for size in (1, 2):
            message = bytes([size]) * net.MESSAGE_BYTES
            connection.sendall(message)
            assert connection.recv(net.MESSAGE_BYTES, socket.MSG_WAITALL) == message


def test_a_server_that_does_not_answer(work, monkeypatch):
    monkeypatch.setattr(net, "ANSWER_S", 1.0)
    monkeypatch.setattr(net, "serving", lambda work, serving=net.serving: serving(work, delay_ms=60_000))
    with pytest.raises(DeadlineError, match="the server in net-mute did not answer within 1 s"):
        net.observe(Request(work, "net-mute", "container"))
    assert instance.names() == []


def test_a_server_that_goes_away(work, monkeypatch):
    """The server accepts the first connection, the probe's, and ends before the next one."""

    def one_connection(work, serving=net.serving):
        _, _, port, _ = serving(work).command
        return work._replace(
            command=("sh", "-c", f"nc -l -p {port} </dev/null; sleep 1000"), ready=Ready(tcp=int(port))
        )

    monkeypatch.setattr(net, "serving", one_connection)
    with pytest.raises(VmctlError, match="the connection to net-gone failed"):
        net.observe(Request(work, "net-gone", "container"))
    assert instance.names() == []


def test_a_server_that_never_listens(work, monkeypatch):
    deaf = work._replace(command=("sleep", "1000"), ready=Ready(tcp=free_port(), timeout_s=Seconds(0.5)))
    monkeypatch.setattr(net, "serving", lambda work: deaf._replace(name=work.name))
    with pytest.raises(DeadlineError, match="net-deaf was not ready within"):
        net.observe(Request(work, "net-deaf", "container"))
    assert instance.names() == []


def test_no_network_cannot_be_measured(own_root):
    with pytest.raises(SpecError, match="has no network to measure"):
        net.prepare(TINY._replace(network="none"))


def test_a_guest_is_reached_through_its_tap(guest_root, unhurried):
    mode = next(mode for mode in MODES if backends.load(mode).features.own_kernel)
    seen = net.observe(Request(net.prepare(TINY), "net-guest", mode))
    assert seen.texts["path"] == "bridge and tap, virtio-net"
    assert len(seen.series["latency_s"]) == net.COUNTED
    assert all(rate > 1e4 for rate in seen.values.values())
