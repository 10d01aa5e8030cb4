"""A small TCP server in the instance, and a client on the host's side of its network: latency and throughput.

The client is this process. It connects through the instance's switch, or through the host's loopback if the instance
shares the host's network. The forwarder of published ports is not involved.
"""

from __future__ import annotations

import socket
import struct
import time

from bench.probes import Request, Seen, tool
from bench.questions import Question, value
from vmctl.backend import Watch
from vmctl.errors import DeadlineError, SpecError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.net import connect
from vmctl.spec.workload import Ready, Workload

if TYPE_CHECKING:
    from bench.model import Sample

ROUNDS = None
MESSAGE_BYTES = 64
DISCARDED, COUNTED = 100, 1000  # requests
PING_S = 10.0  # at most for all of them; then there are fewer, and percentiles may be missing
STREAM_S = 0.5
BLOCK_BYTES = 256 * 1024
ANSWER_S = 10.0  # for one answer

_REQUEST = (
    f"From sending {MESSAGE_BYTES} bytes to having received as many, by the host's clock, one request at a time on one "
    f"connection without Nagle's delay; the first {DISCARDED} do not count. The client is a Python program on the "
    "host's side of the instance's network; its own time of about 10 microseconds is included."
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
        meaning=f"Bytes that the server in the instance reports to have received, until its answer arrives. {_STREAM}",
    ),
)


def prepare(work: Workload) -> Workload:
    """Return the workload with the probe program in its image. Raises SpecError if it has no network."""
    if work.network == "none":
        raise SpecError(
            f"the workload {work.name} has no network to measure (network: none)",
            hint="leave net out of --metrics, or use `network: bridge`",
        )
    return tool.with_program(work)


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
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
            raise VmctlError(f"the connection to {inst.name} failed: {error.strerror or error}") from error
        texts = {**tool.texts(inst), "path": way(start.watch)}
    return Seen(dict(inst.timeline.marks_ns), values, {"latency_s": latencies_s}, texts)


def serving(work: Workload, *, delay_ms: int = 0) -> Workload:
    """Return the workload with the probe program as a server, on a port that is free on the host, too.

    The instance may share the host's network.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return work._replace(command=(tool.PATH, "serve", str(port), str(delay_ms)), ready=Ready(tcp=port))


def ping(inst: Instance, discarded: int = DISCARDED, counted: int = COUNTED) -> list[float]:
    """Return the seconds of each counted request; fewer than `counted` after PING_S. Raises OSError."""
    message, found = bytes(MESSAGE_BYTES), []
    deadline_s = time.monotonic() + PING_S
    with _connected(inst, b"p") as connection:
        for number in range(discarded + counted):
            begin_ns = time.monotonic_ns()
            connection.sendall(message)
            answer = connection.recv(MESSAGE_BYTES, socket.MSG_WAITALL)
            end_ns = time.monotonic_ns()
            if len(answer) != MESSAGE_BYTES:
                raise ConnectionResetError("closed by the server")
            if number >= discarded:
                found.append((end_ns - begin_ns) / 1e9)
            if end_ns / 1e9 > deadline_s:
                break
    return found


def receive(inst: Instance) -> float:
    """Return the bytes per second received from the instance. Raises OSError."""
    block = bytearray(BLOCK_BYTES)
    with _connected(inst, b"d") as connection:
        connection.recv_into(block)  # from now on the server is sending
        begin_ns, size_bytes = time.monotonic_ns(), 0
        while (passed_ns := time.monotonic_ns() - begin_ns) < STREAM_S * 1e9:
            received = connection.recv_into(block)
            if received == 0:
                raise ConnectionResetError("closed by the server")
            size_bytes += received
    return size_bytes / (passed_ns / 1e9)


def send(inst: Instance) -> float:
    """Return the bytes per second sent to the instance, as counted by the server in it. Raises OSError."""
    block = bytes(BLOCK_BYTES)
    with _connected(inst, b"u") as connection:
        begin_ns = time.monotonic_ns()
        while time.monotonic_ns() - begin_ns < STREAM_S * 1e9:
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(8, socket.MSG_WAITALL)
        end_ns = time.monotonic_ns()
    if len(answer) != 8:
        raise ConnectionResetError("closed by the server")
    taken_bytes: int = struct.unpack("<Q", answer)[0]
    return taken_bytes / ((end_ns - begin_ns) / 1e9)


def _connected(inst: Instance, wanted: bytes) -> socket.socket:
    """Return a connection after sending the byte `wanted`, which selects what the server does.

    Its calls block for at most ANSWER_S; see `limit`.
    """
    port = inst.work.ready.tcp if inst.work.ready else None
    connection = connect.connect(inst.state.address or "127.0.0.1", port or 0, timeout_s=ANSWER_S)
    connection.setblocking(True)
    limit(connection, ANSWER_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(wanted)
    return connection


def limit(connection: socket.socket, limit_s: float) -> None:
    """Let calls block for at most `limit_s` in the kernel: with Python's own time-out each call begins with a poll."""
    span = struct.pack("ll", int(limit_s), int(limit_s % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, span)


def way(watch: Watch) -> str:
    """Return a text about the path from a client on the host's side to the instance."""
    if (watch.inst.state.address or "127.").startswith("127."):
        return "loopback of the host"
    return "bridge and tap, virtio-net" if watch.own_kernel else "bridge and veth pair"
