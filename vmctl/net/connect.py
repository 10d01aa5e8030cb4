"""Connecting to an instance from the namespace in which it is reached directly: no forwarder is in a measured path.

A loopback address means an instance in the host's network namespace. Any other address is in the switch, and the socket
is made there. It still belongs to the switch when the thread is back.
"""

from __future__ import annotations

import errno
import time
from contextlib import AbstractContextManager, nullcontext

from vmctl.named import TYPE_CHECKING
from vmctl.net import switch

if TYPE_CHECKING:
    from socket import socket

SILENCE_S = 0.005  # without an answer for this long, the segment counts as lost
GIVE_UP_S = 1.0


def vantage(address: str) -> AbstractContextManager[None]:
    """Return a context in which this thread is in the network namespace from which `address` is reached."""
    return nullcontext() if address.startswith("127.") else switch.entered()


def connect(address: str, port: int, timeout_s: float) -> socket:
    """Return a connected TCP socket. Raises OSError (TimeoutError after `timeout_s`), StateError without a switch."""
    connection = _new_socket(address)
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
        self._attempts: dict[socket, float] = {}  # oldest first, with its start in monotonic seconds
        self._latest_s = 0.0
        self._next: socket | None = None  # made in advance: that takes longer than to connect it

    def poll(self, wait_s: float = 0.0) -> socket | None:
        """Return a connected, non-blocking socket, which the caller closes, or None after `wait_s`.

        A refusal ends the waiting, too.
        """
        now_s = time.monotonic()
        if not self._attempts or now_s - self._latest_s >= SILENCE_S:
            self._start(now_s)
        winner = self._finished(now_s, wait_s)
        if not winner and not self._attempts and not self._next:
            self._next = _new_socket(self._target[0])
        return winner

    def close(self) -> None:
        """Give up the current attempts; another `poll` would start again."""
        for attempt in self._attempts:
            attempt.close()
        self._attempts.clear()
        if self._next:
            self._next.close()
            self._next = None

    def _start(self, now_s: float) -> None:
        attempt, self._next = self._next or _new_socket(self._target[0]), None
        attempt.setblocking(False)
        code = attempt.connect_ex(self._target)
        if code in (0, errno.EINPROGRESS):
            self._attempts[attempt] = self._latest_s = now_s
        else:
            attempt.close()

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
            self._drop(by_fd[fd])
        for attempt in [attempt for attempt, started_s in self._attempts.items() if now_s - started_s > GIVE_UP_S]:
            self._drop(attempt)
        return None

    def _drop(self, attempt: socket) -> None:
        del self._attempts[attempt]
        attempt.close()


def _new_socket(address: str) -> socket:
    import socket

    with vantage(address):
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
