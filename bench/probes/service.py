"""The user's service under load: GET requests for the page of its probe, by a client on the host's side of the
instance's network. The forwarder of published ports is not involved.

Every request uses a new connection: many small servers close it after each answer, and all servers are treated alike.
"""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from bench.probes import Request, Seen, net, start, tool
from bench.questions import Question, value
from vmctl import httpanswer
from vmctl.errors import DeadlineError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.net import connect
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from bench.model import Sample

ROUNDS = None
DISCARDED, COUNTED = 10, 300  # requests one after the other
SERIES_S = 3.0  # at most for all of them; then there are fewer, and percentiles may be missing
CLIENTS = 4  # at once; fewer than the shortest queue of connections in common servers (5, Python's)
RATE_S = 1.0
ANSWER_S = 10.0  # for one answer
CLOSE_S = 0.1  # for the server to close after its answer; the side that closes first keeps the port for a minute
BLOCK_BYTES = 256 * 1024
HEAD_BYTES = 64 * 1024  # at most, of an answer's head

_REQUEST = (
    "GET request for the path in `ready`, the same as the readiness probe's, with `Connection: close`: from connecting "
    f"to the last byte of the answer, by the host's clock, one after the other; the first {DISCARDED} do not count. "
    "The client is a Python program on the host's side of the instance's network; its own time of about 50 "
    "microseconds is included."
)


def _latencies(sample: Sample) -> list[float]:
    return sample.series.get("service_s", [])


QUESTIONS = (
    Question(
        "net.service_s",
        "request latency of the service",
        "s",
        _latencies,
        headline=True,
        service=True,
        meaning=_REQUEST,
    ),
    Question(
        "net.service_p95_s",
        "  95 % of requests within",
        "s",
        _latencies,
        statistic="p95",
        service=True,
        meaning=_REQUEST,
    ),
    Question(
        "net.service_p99_s",
        "  99 % of requests within",
        "s",
        _latencies,
        statistic="p99",
        service=True,
        meaning=_REQUEST,
    ),
    Question(
        "net.service_per_s",
        f"  requests answered to {CLIENTS} clients at once",
        "1/s",
        value("service_per_s"),
        less_is_better=False,
        service=True,
        meaning=f"The same request by {CLIENTS} threads at once, each with one connection after the other, for "
        f"{RATE_S:g} s: complete answers per second. The client runs on the same host and takes processor time, too.",
    ),
)


class Target(NamedTuple):
    """The address and path of the page to request."""

    name: str  # of the instance
    address: str
    port: int
    path: str

    def request(self) -> bytes:
        """Return the bytes of the request: the same as those of the readiness probe."""
        return httpanswer.request(self.address, self.port, self.path)


def prepare(work: Workload) -> Workload:
    """Return the workload without its published ports."""
    return start.prepare(work)


def limit_s(work: Workload, instances: int) -> float:
    """Return the time limit of one sample in seconds."""
    return start.limit_s(work, instances) + SERIES_S + RATE_S + 3 * ANSWER_S


def observe(request: Request) -> Seen:
    """Return the times that the service of one instance took for its answers.

    Raises DeadlineError if it does not get ready or does not answer in time, VmctlError if an answer is an error, is
    cut short, or does not come.
    """
    with tool.running(request) as start:
        inst = start.inst
        target = target_of(inst)
        try:
            latencies_s = series(target)
            values = {"service_per_s": rate(target)}
        except (BlockingIOError, TimeoutError):
            raise DeadlineError(
                f"{inst.name} was ready but did not answer GET {target.path} within {ANSWER_S:g} s"
            ) from None
        except OSError as error:
            raise VmctlError(f"{inst.name} closed the connection of a request: {error.strerror or error}") from error
        texts = {**tool.texts(inst), "path": net.way(start.watch)}
    return Seen(dict(inst.timeline.marks_ns), values, {"service_s": latencies_s}, texts)


def series(target: Target, discarded: int = DISCARDED, counted: int = COUNTED) -> list[float]:
    """Return the seconds of each counted request; fewer than `counted` after SERIES_S. Raises the errors of `get`.

    If the service is too slow for all of them, only the first request is discarded.
    """
    found: list[float] = []
    deadline_s = time.monotonic() + SERIES_S

    def ask() -> None:
        while len(found) < discarded + counted and (len(found) < 2 or time.monotonic() < deadline_s):
            found.append(get(target))

    connect.near(target.address, ask)
    return found[discarded:] or found[1:]


def rate(target: Target) -> float:
    """Return how many requests per second the service answers to CLIENTS at once. Raises the errors of `get`."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        begin_s = time.monotonic()
        clients = [pool.submit(_repeat, target, begin_s + RATE_S) for _ in range(CLIENTS)]
        answers = sum(client.result() for client in clients)
        return answers / (time.monotonic() - begin_s)


def _repeat(target: Target, deadline_s: float) -> int:
    """Return the number of requests until `deadline_s`, including the one that is then in progress."""

    def ask() -> int:
        answers = 0
        while not answers or time.monotonic() < deadline_s:
            get(target)
            answers += 1
        return answers

    return connect.near(target.address, ask)


def get(target: Target) -> float:
    """Return the seconds from connecting to the last byte of the answer; for a namespace that reaches the target.

    Raises VmctlError for an answer that is an error or is cut short, BlockingIOError or TimeoutError after ANSWER_S,
    OSError if the connection fails.
    """
    request = target.request()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        net.limit(connection, ANSWER_S)
        begin_ns = time.monotonic_ns()
        connection.connect((target.address, target.port))
        connection.sendall(request)
        head, wanted, received = _receive(connection, begin_ns / 1e9 + ANSWER_S)
        end_ns = time.monotonic_ns()
        _check(target, head, wanted, received)
        net.limit(connection, CLOSE_S)
        with suppress(OSError):
            connection.recv(1)
    return (end_ns - begin_ns) / 1e9


def _receive(connection: socket.socket, deadline_s: float) -> tuple[bytes, int | None, int]:
    """Return the first bytes of an answer, its length in bytes if its head has one, and how many bytes have arrived."""
    head, wanted, received = b"", None, 0
    while wanted is None or received < wanted:
        part = connection.recv(BLOCK_BYTES)
        if not part:
            break
        received += len(part)
        if wanted is None and len(head) < HEAD_BYTES:
            head += part
            wanted = length_of(head)
        if time.monotonic() > deadline_s:  # the socket's own limit applies to each part; an endless stream has many
            raise TimeoutError
    return head, wanted, received


def length_of(head: bytes) -> int | None:
    """Return the length in bytes of the answer with this head, head and content (RFC 9112, 6.3); None if unknown."""
    end = head.find(b"\r\n\r\n")
    found = re.search(rb"\r\ncontent-length:[ \t]*(\d+)", head[:end], re.IGNORECASE) if end >= 0 else None
    return end + 4 + int(found[1]) if found else None


def _check(target: Target, head: bytes, wanted: int | None, received: int) -> None:
    """Raise VmctlError unless this is a complete answer with a status below 400 (RFC 9110)."""
    asked = f"{target.name} answered GET {target.path}"
    status = httpanswer.status(head)
    if status is None or b"\r\n\r\n" not in head:
        raise VmctlError(f"{asked} with {received} bytes that are not an HTTP answer")
    if status >= 400:
        line = head.partition(b"\r\n")[0].decode(errors="replace")
        raise VmctlError(f"{asked} with {line!r}, although it had been ready before")
    if wanted is not None and received < wanted:
        raise VmctlError(f"{asked} with {received} bytes, but announced {wanted}")


def target_of(inst: Instance) -> Target:
    """Return the target of an instance's readiness probe. Raises VmctlError if the probe does not use HTTP."""
    probe = inst.work.ready.http if inst.work.ready else None
    if probe is None:
        raise VmctlError(
            f"{inst.name} has no page to request: its workload has no `ready` by http",
            hint="add `ready: {http: PORT/PATH}` to the workload file",
        )
    return Target(inst.name, inst.state.address or "127.0.0.1", probe.port, probe.path)
