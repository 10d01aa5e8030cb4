import hashlib
import os
import resource
import socket
import struct
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from support.networks import attach, echo_server, forwarders, host_view, resident

from vmctl.errors import ConflictError, StateError, UnavailableError
from vmctl.instances import instance
from vmctl.linux import processes, syscalls
from vmctl.net import bridge, forwarder, ports
from vmctl.programs import run
from vmctl.spec.workload import Port, Workload

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

MANY = 1000
BULK_BYTES = 50_000_000


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def create(name, *published):
    return instance.create(Workload(name, "tiny", ports=published), "container")


def undo(inst):
    for entry in reversed(inst.journal.entries()):
        if entry["kind"] == "process":
            processes.end(entry["pid"], entry["start"])
            os.waitpid(entry["pid"], 0)
        else:
            bridge.undo(inst.directory, entry)


def publish(inst, target):
    ports.publish(inst.name, inst.work.ports, target, inst.journal, inst.path("forwarder.log"))


def pid_of(inst):
    return next(entry["pid"] for entry in inst.journal.entries() if entry["kind"] == "process")


@contextmanager
def published(inst, target):
    try:
        publish(inst, target)
        yield
    finally:
        undo(inst)


@contextmanager
def local_server(answer):
    """A server of the host's own; `answer` gets each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with ExitStack() as stack:
                while True:
                    try:
                        answer(stack.enter_context(listener.accept()[0]))
                    except OSError:
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def connect(port, address="127.0.0.1"):
    return socket.create_connection((address, port), timeout=120)


def read_all(connection):
    parts = []
    while data := connection.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


@pytest.fixture
def inside(empty_root):
    """An echo server in a namespace on the switch, published over TCP; returns the port on the host."""
    port = free_port()
    inst = create("web", Port("127.0.0.1", port, 8000))
    before = host_view(empty_root)
    link = attach(inst)
    with resident(link, echo_server(8000)), published(inst, link.address):
        inst.port = port
        yield inst
    os.unlink(inst.path("forwarder.log"))
    assert host_view(empty_root) == before


@needs_root
def test_bytes_go_both_ways_and_a_half_close_is_passed_on(inside):
    with connect(inside.port) as connection:
        connection.sendall(b"hello")
        assert connection.recv(10) == b"hello"
        connection.sendall(b"and more")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"and more"


@needs_root
def test_a_big_transfer_arrives_whole(inside):
    data = os.urandom(1_000_000) * (BULK_BYTES // 1_000_000)
    with connect(inside.port) as connection:

        def send():
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        answer = read_all(connection)
        sender.join()
    assert hashlib.sha256(answer).digest() == hashlib.sha256(data).digest()


@needs_root
def test_a_slow_reader_gets_everything(inside):
    data = os.urandom(3_000_000)
    with connect(inside.port) as slow, connect(inside.port) as quick:
        sender = threading.Thread(target=slow.sendall, args=(data,))
        sender.start()
        time.sleep(0.2)  # every buffer on the way fills up
        quick.sendall(b"x")
        assert quick.recv(1) == b"x"
        got = b""
        while len(got) < len(data):
            got += slow.recv(1 << 16)
        sender.join()
    assert got == data


@needs_root
def test_a_thousand_connections_at_once(inside):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * MANY)), hard))
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(inside.port)) for _ in range(MANY)]
        for number, connection in enumerate(connections):
            connection.sendall(str(number).encode())
        for number, connection in enumerate(connections):
            assert connection.recv(10) == str(number).encode()
        assert processes.pss_bytes(pid_of(inside)) < 16 << 20
    pid = pid_of(inside)
    deadline = time.monotonic() + 120
    while len(os.listdir(f"/proc/{pid}/fd")) > 100:  # none of them is kept
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_root
def test_the_forwarder_is_small_and_lives_on_its_own(inside):
    pid = pid_of(inside)
    with connect(inside.port) as connection:
        connection.sendall(b"x")
        connection.recv(1)
    assert processes.pss_bytes(pid) < 10 << 20
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


@needs_root
def test_udp_answers_find_their_client(empty_root):
    port = free_port(socket.SOCK_DGRAM)
    inst = create("dns", Port("127.0.0.1", port, 53, "udp"))
    link = attach(inst)
    with resident(link, echo_server(53, "udp")), published(inst, link.address), ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(20)]
        for number, client in enumerate(clients):
            client.settimeout(30)
            client.connect(("127.0.0.1", port))
            client.send(b"first %d" % number)
            client.send(b"second %d" % number)
        for number, client in enumerate(clients):
            assert {client.recv(100), client.recv(100)} == {b"first %d" % number, b"second %d" % number}
        clients[0].send(bytes(60_000))
        assert clients[0].recv(65536) == bytes(60_000)


@needs_root
def test_udp_survives_a_port_where_nobody_listens(empty_root):
    port = free_port(socket.SOCK_DGRAM)
    inst = create("dns", Port("127.0.0.1", port, 53, "udp"))
    link = attach(inst)
    with resident(link), published(inst, link.address):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", port))
            for _ in range(5):
                client.send(b"x")
                time.sleep(0.01)
        assert processes.alive(pid_of(inst), processes.start_time(pid_of(inst)))


def test_a_refused_connection_is_closed(empty_root):
    port = free_port()
    inst = create("web", Port("127.0.0.1", port, free_port()))
    with published(inst, "127.0.0.1"):
        for _ in range(3):
            with connect(port) as connection:
                assert connection.recv(10) == b""


def test_a_connection_that_broke_inside_does_not_look_complete(empty_root):
    def break_off(connection):
        connection.sendall(b"a part")
        time.sleep(0.1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    port = free_port()
    with local_server(break_off) as inner:
        inst = create("web", Port("127.0.0.1", port, inner))
        with published(inst, "127.0.0.1"), connect(port) as connection, pytest.raises(ConnectionResetError):
            read_all(connection)


def test_clients_that_vanish_leave_nothing_open(empty_root):
    def answer(connection):
        connection.recv(10)

    port = free_port()
    with local_server(answer) as inner:
        inst = create("web", Port("127.0.0.1", port, inner))
        with published(inst, "127.0.0.1"):
            with connect(port) as connection:
                connection.sendall(b"x")
            idle = len(os.listdir(f"/proc/{pid_of(inst)}/fd"))
            for _ in range(30):
                with connect(port) as connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            deadline = time.monotonic() + 120
            while len(os.listdir(f"/proc/{pid_of(inst)}/fd")) > idle:
                assert time.monotonic() < deadline
                time.sleep(0.01)


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp6"), reason="this kernel has no IPv6")
def test_several_ports_share_one_forwarder_and_ipv6_is_one_of_them(empty_root):
    numbers = free_port(), free_port()
    with local_server(lambda connection: connection.sendall(b"x")) as inner:
        inst = create("web", Port("127.0.0.1", numbers[0], inner), Port("::1", numbers[1], inner))
        with published(inst, "127.0.0.1"):
            for number, address in zip(numbers, ("127.0.0.1", "::1"), strict=True):
                with connect(number, address) as connection:
                    assert connection.recv(1) == b"x"
            assert len(forwarders(empty_root)) == 1


def test_without_anything_to_forward_there_is_no_forwarder(empty_root):
    number = free_port()
    for inst in (create("none"), create("same", Port("127.0.0.1", number, number))):
        publish(inst, "127.0.0.1")
        assert inst.journal.entries() == []


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_taken_port_names_the_process_that_has_it(empty_root, kind):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", 0))
        if kind == "tcp":
            holder.listen()
        port = Port("127.0.0.1", holder.getsockname()[1], 80, kind)
        (problem,) = ports.refusals([port, Port("127.0.0.1", free_port(), 80, kind)])
        assert f"{port.host_port}/{kind} is taken by" in str(problem)
        assert f"(process {os.getpid()})" in str(problem)
        assert problem.hint


def test_a_port_of_another_instance_names_that_instance(empty_root):
    port = Port("127.0.0.1", free_port(), 80)
    first, second = create("first", port), create("second", port)
    with published(first, "127.0.0.1"):
        (problem,) = ports.refusals([port])
        assert "is taken by the instance first" in str(problem)
        with pytest.raises(ConflictError, match="the instance first"):
            publish(second, "127.0.0.1")
        assert second.journal.entries() == []
        assert len(forwarders(empty_root)) == 1
    assert ports.refusals([port]) == []


@needs_root
def test_a_port_below_1024_needs_root(empty_root):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)  # independent of the host's net.ipv4.ip_unprivileged_port_start
            syscalls.capset(0)
            (problem,) = ports.refusals([Port("127.0.0.1", 80, 80)])
            assert str(problem) == "binding 127.0.0.1:80/tcp needs root (ports below 1024)"
            assert problem.hint == "publish a port above 1023"
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_failed_port_lets_the_others_go(empty_root):
    good, bad = Port("127.0.0.1", free_port(), 80), Port("192.0.2.1", free_port(), 80)
    with pytest.raises(UnavailableError, match="does not have"):
        publish(create("web", good, bad), "127.0.0.1")
    assert ports.refusals([good]) == []
    assert len(ports.refusals([good, bad, good])) == 2  # the second `good` is the first one's


def test_publishing_without_a_switch_leaves_nothing(empty_root):
    port = Port("127.0.0.1", free_port(), 80)
    inst = create("web", port)
    with pytest.raises(StateError):
        publish(inst, "10.77.0.2")
    assert inst.journal.entries() == []
    assert ports.refusals([port]) == []


def test_a_forwarder_whose_parent_died_too_early_leaves():
    wait, go = os.pipe()
    os.set_inheritable(wait, True)
    argv = [sys.executable, "-I", "-S", forwarder.program_files()[0], "web", "127.0.0.1", str(wait)]
    pid = os.posix_spawn(sys.executable, argv, os.environ)
    os.close(go)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(wait)


def test_it_runs_from_its_source_as_well():
    assert run([sys.executable, "-I", "-S", forwarder.__file__, "web", "127.0.0.1", "0"]) == (0, "", "")


def test_a_user_runs_the_source_if_root_has_compiled_it_for_itself():
    ports._program()
    cached = forwarder.__spec__.cached
    mode = os.stat(cached).st_mode
    read, write = os.pipe()
    os.chmod(cached, 0o600)
    try:
        if (pid := os.fork()) == 0:
            os.setresuid(65534, 65534, 65534)
            os.write(write, "\n".join((ports._program(), *forwarder.program_files())).encode())
            os._exit(0)
        os.waitpid(pid, 0)
    finally:
        os.chmod(cached, mode)
        os.close(write)
    with os.fdopen(read) as file:
        assert file.read().split("\n") == [forwarder.__file__] * 2
