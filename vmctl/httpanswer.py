"""The request of a probe by HTTP, and as much of its answer as the probe needs (RFC 9110, RFC 9112)."""

from __future__ import annotations

import time
from contextlib import suppress

from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from socket import socket

ANSWER_S = 1.0  # time limit for the first line
REST_BYTES, REST_S, QUIET_S = (
    1 << 20,
    0.3,
    0.1,
)  # of the rest of an answer: size, whole time, time in which nothing comes


def request(address: str, port: int, path: str) -> bytes:
    """Return a GET request that closes its connection."""
    return f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n\r\n".encode()


def first_line(connection: socket) -> bytes:
    """Return the first bytes of an answer; all of them must arrive within ANSWER_S. Raises OSError."""
    answer, end_s = b"", time.monotonic() + ANSWER_S
    while b"\n" not in answer and len(answer) < 64:
        connection.settimeout(max(0.001, end_s - time.monotonic()))
        if not (data := connection.recv(64)):
            break
        answer += data
    return answer


def status(answer: bytes) -> int | None:
    """Return the status of an answer from its first bytes, or None if it is not HTTP."""
    version, _, number = answer[:64].partition(b" ")
    return int(number[:3]) if version.startswith(b"HTTP/") and number[:3].isdigit() else None


def drain(connection: socket, quiet_s: float | None = None) -> None:
    """Read the rest of an answer, within limits: a server whose connection is closed before reports a broken pipe.

    `quiet_s` is the time to wait for more, 0 for what is there (default: QUIET_S).
    """
    left, end_s = REST_BYTES, time.monotonic() + REST_S
    with suppress(OSError):
        while left > 0 and (rest_s := end_s - time.monotonic()) > 0:
            connection.settimeout(min(QUIET_S if quiet_s is None else quiet_s, rest_s))
            if not (data := connection.recv(1 << 16)):
                return
            left -= len(data)
