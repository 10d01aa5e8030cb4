"""Connecting to an instance from the namespace in which it is reached directly: no forwarder is in a measured path.

A loopback address means an instance in the host's network namespace. Any other address is in the switch: the socket is
made there, belongs to it for good, and is used from here.
"""

from __future__ import annotations

import errno
import time

from vmctl.named import TYPE_CHECKING
from vmctl.net import switch

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket
    from typing import TypeVar

    T = TypeVar("T")

SILENCE_S = 0.005  # without an answer for this long, the segment counts as lost
GIVE_UP_S = 1.0
SPARES = 16  # sockets made at a time for parallel attempts


def near(address: str, work: Callable[[], T]) -> T:
    """Call `work` in a thread in the network namespace from which `address` is reached; return its result.

    Raises its error, and StateError without a switch.
    """
    return work() if address.startswith("127.") else switch.inside(work)


def connect(address: str, port: int, timeout_s: float) -> socket:
    """Return a connected TCP socket. Raises OSError (TimeoutError after `timeout_s`), StateError without a switch."""
    (connection,) = _new_sockets(address, 1)
    try:
        connection.settimeout(timeout_s)
        connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection


class Connector:
    """Tries to connect to a TCP port until it succeeds; call `poll` repeatedly.

    After a refusal the next `poll` makes the next attempt. A segment sent to a guest whose interface is not up yet is
    lost, and TCP repeats it only after a second: so another attempt is made in parallel to a silent one.
    """

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self.refused = False  # whether the last answer was that nobody listens
        self._attempts: dict[socket, float] = {}  # oldest first, with its start in monotonic seconds
        self._latest_s = 0.0
        self._spare: list[socket] = []  # unconnected ones: to make one takes longer than to connect it

    def poll(self, wait_s: float = 0.0) -> socket | None:
        """Return a connected, non-blocking socket, which the caller closes, or None after `wait_s`.

        A refusal ends the waiting, too.
        """
        now_s = time.monotonic()
        if not self._attempts or now_s - self._latest_s >= SILENCE_S:
            self._start(now_s)
        return self._finished(now_s, wait_s)

    def close(self) -> None:
        """Give up the current attempts; another `poll` would start again."""
        for sock in (*self._attempts, *self._spare):
            sock.close()
        self._attempts.clear()
        self._spare.clear()

    def _start(self, now_s: float) -> None:
        if not self._spare:
            self._spare = _new_sockets(self._target[0], SPARES if self._attempts else 1)
        attempt = self._spare.pop()
        if attempt.connect_ex(self._target) in (0, errno.EINPROGRESS):
            self._attempts[attempt] = self._latest_s = now_s
        else:
            self._spare.append(attempt)

    def _finished(self, now_s: float, wait_s: float) -> socket | None:
        import select

        poller = select.poll()
        by_fd = {attempt.fileno(): attempt for attempt in self._attempts}
        for fd in by_fd:
            poller.register(fd, select.POLLOUT)
        for fd, events in poller.poll(1000 * wait_s):
            if events == select.POLLOUT:
                winner = by_fd[fd]
                del self._attempts[winner]
                self.close()
                return winner
            self._reuse(by_fd[fd])
        for attempt in [attempt for attempt, started_s in self._attempts.items() if now_s - started_s > GIVE_UP_S]:
            del self._attempts[attempt]
            attempt.close()
        return None

    def _reuse(self, refused: socket) -> None:
        """Keep a refused socket for the next attempt: Linux allows that once the error has been fetched."""
        del self._attempts[refused]
        # returns the error of the attempt before, and does nothing else
        self.refused = refused.connect_ex(self._target) == errno.ECONNREFUSED
        self._spare.append(refused)


def _new_sockets(address: str, count: int) -> list[socket]:
    import socket

    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    return near(address, lambda: [socket.socket(socket.AF_INET, kind) for _ in range(count)])
