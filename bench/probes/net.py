"""A small TCP server in the instance, and a client on the host's side of its network: latency and throughput.

The client is this process, on the switch that the instance is plugged in, or on the host's loopback where the instance
has no network of its own. No forwarder of published ports stands in between.
"""

from __future__ import annotations

import socket
import struct
import time

from bench.probes import Request, Seen, tool
from bench.questions import Question, value
from vmctl.backend import Watch
from vmctl.errors import DeadlineError, SpecError, VmctlError
from vmctl.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.net import connect
from vmctl.workload import Ready, Workload

if TYPE_CHECKING:
    from bench.model import Sample

ROUNDS = None
MESSAGE_BYTES = 64
DISCARDED, COUNTED = 100, 1000  # requests
PING_S = 10.0  # at most for all of them: then there are fewer, and the percentiles say so
STREAM_S = 0.5
BLOCK_BYTES = 256 * 1024
ANSWER_S = 10.0  # for one answer

_REQUEST = (
    f"From sending {MESSAGE_BYTES} bytes to having received as many, by the host's clock, one request at a time on one "
    f"connection without Nagle's delay; the first {DISCARDED} do not count. A Python client on the host's side of the "
    "instance's network: its own time is in it, some 10 microseconds."
)
_STREAM = f"One TCP connection for at least {STREAM_S:g} s by the host's clock."


def _latencies(sample: Sample) -> list[float]:
    return sample.series.get("latency_s", [])


QUESTIONS = (
    Question("net.latency_s", f"round trip of {MESSAGE_BYTES} bytes", "s", _latencies, headline=True, meaning=_REQUEST),
    Question("net.latency_p95_s", "  95 % of them within", "s", _latencies, statistic="p95", meaning=_REQUEST),
    Question("net.latency_p99_s", "  99 % of them within", "s", _latencies, statistic="p99", meaning=_REQUEST),
    Question(
        "net.from_bytes_s",
        "throughput from the instance",
        "bytes/s",
        value("from_bytes_s"),
        less_is_better=False,
        headline=True,
        meaning=f"Bytes that the client received. {_STREAM}",
    ),
    Question(
        "net.to_bytes_s",
        "throughput to the instance",
        "bytes/s",
        value("to_bytes_s"),
        less_is_better=False,
        meaning=f"Bytes that the server in the instance says it received, until its answer is there. {_STREAM}",
    ),
)


def prepare(work: Workload) -> Workload:
    """Return the workload with our program in it. Raises SpecError where it has no network."""
    if work.network == "none":
        raise SpecError(
            f"{work.name} has no network to measure (network: none)", hint="leave net out of --metrics, or give it one"
        )
    return tool.with_program(work)


def limit_s(work: Workload, instances: int) -> float:
    """Return after how many seconds a sample is given up."""
    return tool.LIMIT_S


def observe(request: Request) -> Seen:
    """Return latencies and throughputs of one instance. Raises errors of vmctl.errors."""
    with tool.running(request._replace(work=serving(request.work))) as start:
        inst = start.inst
        try:
            latencies_s = ping(inst)
            values = {"from_bytes_s": receive(inst), "to_bytes_s": send(inst)}
        except (BlockingIOError, TimeoutError):
            raise DeadlineError(f"the server in {inst.name} did not answer within {ANSWER_S:g} s") from None
        except OSError as error:
            raise VmctlError(f"the connection to {inst.name} broke: {error.strerror or error}") from error
        texts = {**tool.texts(inst), "path": way(start.watch)}
    return Seen(dict(inst.timeline.marks_ns), values, {"latency_s": latencies_s}, texts)


def serving(work: Workload, *, delay_ms: int = 0) -> Workload:
    """Return the workload as our server, on a port that is free on the host too: it may be the same network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return work._replace(command=(tool.PATH, "serve", str(port), str(delay_ms)), ready=Ready(tcp=port))


def ping(inst: Instance, discarded: int = DISCARDED, counted: int = COUNTED) -> list[float]:
    """Return the seconds that each counted request took; fewer than asked for after PING_S. Raises OSError."""
    message, found = bytes(MESSAGE_BYTES), []
    deadline_s = time.monotonic() + PING_S
    with _connected(inst, b"p") as connection:
        for number in range(discarded + counted):
            begin_ns = time.monotonic_ns()
            connection.sendall(message)
            answer = connection.recv(MESSAGE_BYTES, socket.MSG_WAITALL)
            end_ns = time.monotonic_ns()
            if len(answer) != MESSAGE_BYTES:
                raise ConnectionResetError("the server closed it")
            if number >= discarded:
                found.append((end_ns - begin_ns) / 1e9)
            if end_ns / 1e9 > deadline_s:
                break
    return found


def receive(inst: Instance) -> float:
    """Return the bytes per second that come from the instance. Raises OSError."""
    block = bytearray(BLOCK_BYTES)
    with _connected(inst, b"d") as connection:
        connection.recv_into(block)  # its sender runs
        begin_ns, size_bytes = time.monotonic_ns(), 0
        while (passed_ns := time.monotonic_ns() - begin_ns) < STREAM_S * 1e9:
            received = connection.recv_into(block)
            if received == 0:
                raise ConnectionResetError("the server closed it")
            size_bytes += received
    return size_bytes / (passed_ns / 1e9)


def send(inst: Instance) -> float:
    """Return the bytes per second that the instance takes, counted by it. Raises OSError."""
    block = bytes(BLOCK_BYTES)
    with _connected(inst, b"u") as connection:
        begin_ns = time.monotonic_ns()
        while time.monotonic_ns() - begin_ns < STREAM_S * 1e9:
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(8, socket.MSG_WAITALL)
        end_ns = time.monotonic_ns()
    if len(answer) != 8:
        raise ConnectionResetError("the server closed it")
    taken_bytes: int = struct.unpack("<Q", answer)[0]
    return taken_bytes / ((end_ns - begin_ns) / 1e9)


def _connected(inst: Instance, wanted: bytes) -> socket.socket:
    """Return a connection on which the server has been told what is wanted.

    It blocks in the call itself, for ANSWER_S at most: with Python's own time-out each call would begin with a poll.
    """
    port = inst.work.ready.tcp if inst.work.ready else None
    connection = connect.connect(inst.state.address or "127.0.0.1", port or 0, timeout_s=ANSWER_S)
    connection.setblocking(True)
    limit(connection, ANSWER_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(wanted)
    return connection


def limit(connection: socket.socket, limit_s: float) -> None:
    """Let calls block for so long at most, in the call itself: with Python's time-out each would begin with a poll."""
    span = struct.pack("ll", int(limit_s), int(limit_s % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, span)


def way(watch: Watch) -> str:
    """Return the way from a client on the host's side to the instance and back, in words."""
    if (watch.inst.state.address or "127.").startswith("127."):
        return "loopback of the host"
    return "bridge and tap, virtio-net" if watch.own_kernel else "bridge and veth pair"
