"""The user's own service under requests: GETs of the page that its probe asks for, by a client on the host's side of
the instance's network. No forwarder of published ports stands in between.

Every request has a connection of its own: many small servers close after each answer, and so all are asked alike.
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
from vmctl import readiness
from vmctl.errors import DeadlineError, VmctlError
from vmctl.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.net import connect
from vmctl.workload import Workload

if TYPE_CHECKING:
    from bench.model import Sample

ROUNDS = None
DISCARDED, COUNTED = 10, 300  # requests one after the other
SERIES_S = 3.0  # at most for all of them: then there are fewer, and the percentiles say so
CLIENTS = 4  # at once; fewer than the shortest queue of connections that servers have (5, Python's)
RATE_S = 1.0
ANSWER_S = 10.0  # for one answer
CLOSE_S = 0.1  # for the server to close, when it has answered; the one that closes first keeps the port for a minute
BLOCK_BYTES = 256 * 1024
HEAD_BYTES = 64 * 1024  # of an answer's head

_REQUEST = (
    "GET of the path in `ready`, as the readiness probe has it, with `Connection: close`: from connecting to the last "
    f"byte of the answer, by the host's clock, one after the other; the first {DISCARDED} do not count. A Python "
    "client on the host's side of the instance's network: its own time is in it, some 50 microseconds."
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
        f"{RATE_S:g} s: whole answers per second. The client runs on the same host and takes processor time, too.",
    ),
)


class Target(NamedTuple):
    """What is asked for, and where."""

    name: str  # of the instance
    address: str
    port: int
    path: str

    def request(self) -> bytes:
        """Return the bytes that are sent: the same as those of the readiness probe."""
        return readiness.http_request(self.address, self.port, self.path)


def prepare(work: Workload) -> Workload:
    """Return the workload without its published ports."""
    return start.prepare(work)


def limit_s(work: Workload, instances: int) -> float:
    """Return after how many seconds a sample is given up."""
    return start.limit_s(work, instances) + SERIES_S + RATE_S + 3 * ANSWER_S


def observe(request: Request) -> Seen:
    """Return what the service of one instance took for its answers. Raises errors of vmctl.errors.

    DeadlineError where it does not get ready or does not answer in time; VmctlError where an answer is no success, is
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
                f"{inst.name} was ready, and then did not answer GET {target.path} within {ANSWER_S:g} s"
            ) from None
        except OSError as error:
            raise VmctlError(f"{inst.name} broke the connection of a request: {error.strerror or error}") from error
        texts = {**tool.texts(inst), "path": net.way(start.watch)}
    return Seen(dict(inst.timeline.marks_ns), values, {"service_s": latencies_s}, texts)


def series(target: Target, discarded: int = DISCARDED, counted: int = COUNTED) -> list[float]:
    """Return the seconds of each request that counts; fewer than asked for after SERIES_S. Raises as `get` does.

    Of a service that is too slow for all of them, the first one alone does not count.
    """
    found: list[float] = []
    deadline_s = time.monotonic() + SERIES_S
    with connect.vantage(target.address):
        while len(found) < discarded + counted and (len(found) < 2 or time.monotonic() < deadline_s):
            found.append(get(target))
    return found[discarded:] or found[1:]


def rate(target: Target) -> float:
    """Return how many requests per second are answered to CLIENTS at once. Raises as `get` does."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        begin_s = time.monotonic()
        clients = [pool.submit(_repeat, target, begin_s + RATE_S) for _ in range(CLIENTS)]
        answers = sum(client.result() for client in clients)
        return answers / (time.monotonic() - begin_s)


def _repeat(target: Target, deadline_s: float) -> int:
    """Return the number of requests until a moment; the last one is waited for."""
    answers = 0
    with connect.vantage(target.address):
        while not answers or time.monotonic() < deadline_s:
            get(target)
            answers += 1
    return answers


def get(target: Target) -> float:
    """Return the seconds from connecting to the last byte of the answer; in the namespace that reaches the target.

    Raises VmctlError for an answer that is no success or is cut short, BlockingIOError or TimeoutError where it takes
    ANSWER_S, OSError where the connection breaks.
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
    """Return an answer's beginning, its length in bytes where its head says one, and how many have come."""
    head, wanted, received = b"", None, 0
    while wanted is None or received < wanted:
        part = connection.recv(BLOCK_BYTES)
        if not part:
            break
        received += len(part)
        if wanted is None and len(head) < HEAD_BYTES:
            head += part
            wanted = length_of(head)
        if time.monotonic() > deadline_s:  # the socket's own limit is for one part: a stream without an end has many
            raise TimeoutError
    return head, wanted, received


def length_of(head: bytes) -> int | None:
    """Return the length of the answer that begins so, head and content (RFC 9112, 6.3); None where it is not said."""
    end = head.find(b"\r\n\r\n")
    found = re.search(rb"\r\ncontent-length:[ \t]*(\d+)", head[:end], re.IGNORECASE) if end >= 0 else None
    return end + 4 + int(found[1]) if found else None


def _check(target: Target, head: bytes, wanted: int | None, received: int) -> None:
    """Raise VmctlError for what is no whole answer with a status below 400 (RFC 9110)."""
    asked = f"{target.name} answered GET {target.path}"
    status = readiness.http_status(head)
    if status is None or b"\r\n\r\n" not in head:
        raise VmctlError(f"{asked} with {received} bytes that are no HTTP answer")
    if status >= 400:
        line = head.partition(b"\r\n")[0].decode(errors="replace")
        raise VmctlError(f"{asked} with {line!r}, although it had been ready before")
    if wanted is not None and received < wanted:
        raise VmctlError(f"{asked} with {received} bytes where it had announced {wanted}")


def target_of(inst: Instance) -> Target:
    """Return what the readiness probe of an instance asks for. Raises VmctlError for another probe than one by HTTP."""
    probe = inst.work.ready.http if inst.work.ready else None
    if probe is None:
        raise VmctlError(
            f"{inst.name} cannot be asked for a page: its workload has no `ready` by http",
            hint="`ready: {http: PORT/PATH}` in the workload file",
        )
    return Target(inst.name, inst.state.address or "127.0.0.1", probe.port, probe.path)
