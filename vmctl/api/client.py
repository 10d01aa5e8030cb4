"""A program's side of requests: safe in threads, and after a fork of the program.

The server is started by the first request, and ends with the program. A program that was forked starts a server of its
copy, so that no two programs share one.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from vmctl.api import wire
from vmctl.errors import UnavailableError, VmctlError
from vmctl.programs import module

_BLOCK_BYTES = 1 << 16
_END_S = 120.0  # for the removal of all instances of the program at its end
_UNDONE_S = 60.0  # for a request that was interrupted
GRACE_S = 2.0  # between SIGTERM and SIGKILL

_lock = threading.Lock()
_server: _Server | None = None
_of_thread = threading.local()  # `calls`: those that another thread wants to know of, see `watched`


class _Server:
    """A server of this program, at the other end of a socket."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._made = os.fstat(self.control.fileno())
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        argv = module("vmctl.api.server")
        try:
            pid = os.posix_spawn(
                argv[0],
                argv,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, null, 1),
                    (os.POSIX_SPAWN_DUP2, null, 2),
                ],
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGCHLD, signal.SIGINT],
            )
        except OSError as error:
            self.control.close()
            raise UnavailableError(f"the Python of this program cannot be started: {argv[0]}: {error}") from None
        finally:
            theirs.close()
            os.close(null)
        with suppress(ChildProcessError):  # the program ignores SIGCHLD
            os.waitpid(pid, 0)  # the server itself is a child of this one

    def forget(self) -> None:
        """Close this copy of a fork, unless the program has closed the number without us, and uses it again."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self.control.fileno()), self._made):
                self.control.close()
                return
        self.control.detach()

    def close(self) -> None:
        """Let it remove what this program has not kept, and wait for that."""
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)
            wire.readable([self.control], _END_S)
        self.control.close()


def _send(descriptors: Sequence[int]) -> None:
    """Send the descriptors of a request to the server; start it if that was not done, or if it was killed."""
    global _server
    for attempt in range(2):
        with _lock:
            if _server is None:
                _server = _Server()
            try:
                socket.send_fds(_server.control, [b"request"], list(descriptors))
                return
            except (BrokenPipeError, ConnectionResetError):
                _server.control.close()
                _server = None
                if attempt:
                    raise UnavailableError("the process of vmctl that serves this program ends at once") from None


def close() -> None:
    """Remove the instances that this program has started and not kept; called at its end."""
    global _server
    with _lock:
        server, _server = _server, None
    if server is not None:
        server.close()


def _forget() -> None:
    """In a fork: leave the server to the program that has started it."""
    global _server, _lock
    _lock = threading.Lock()
    if _server is not None:
        _server.forget()
        _server = None


os.register_at_fork(after_in_child=_forget)
atexit.register(close)


class Call:
    """A request at work."""

    def __init__(self, verb: str, given: dict[str, Any], streams: Sequence[int] = ()) -> None:
        self._socket, theirs = socket.socketpair()
        try:
            _send([theirs.fileno(), *streams])
            theirs.close()
            request = {"verb": verb, "given": given, "folder": os.getcwd(), "variables": dict(os.environ)}
            self._socket.sendall(wire.line(request))
        except BaseException:
            theirs.close()
            self._socket.close()
            raise
        self._lines = wire.Lines()
        self._pidfd: int | None = None
        self._signals = 0  # so many are to be sent when the process has begun
        self._guard = threading.Lock()
        self.over = False
        watching = getattr(_of_thread, "calls", None)
        if watching is not None:
            watching.append(self)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is an event."""
        return self._socket.fileno()

    def interrupt(self) -> None:
        """Ask it to end: the first time by SIGTERM, which a command gets; after that, it gets SIGKILL."""
        with self._guard:
            if self.over:
                return
            if self._pidfd is None:
                self._signals += 1
            else:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def events(self) -> Iterator[tuple[str, Any]]:
        """Yield what has arrived, up to the last event. Raises the error of the request."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, _BLOCK_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        for fd in descriptors:
            self._begun(fd)
        if not data:
            self.close()
            raise VmctlError("the process of vmctl that was at work on this was killed")
        for event, values in self._lines.feed(data):
            if event == wire.FAILED:
                self.close()
                raise wire.to_error(values)
            if event == wire.DONE:
                self.close()
            yield event, values

    def _begun(self, pidfd: int) -> None:
        with self._guard:
            self._pidfd = pidfd
            for _ in range(self._signals):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)

    def close(self) -> None:
        """Close the descriptors; repeatable."""
        with self._guard:
            self.over = True
            self._socket.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None

    def result(self, seen: Callable[[str, Any], None] | None = None, undo: Callable[[Any], None] | None = None) -> Any:
        """Wait for the end and return the values of the request; `seen` is called with each event before.

        If this is interrupted, the request is too, and waited for; what it had done by then goes to `undo`.
        """
        try:
            while True:
                for event, values in self.events():
                    if event == wire.DONE:
                        return values
                    if seen is not None and event != "begun":
                        seen(event, values)
        except VmctlError:
            raise
        except BaseException:
            self.abandon(seen, undo)
            raise

    def abandon(
        self, seen: Callable[[str, Any], None] | None = None, undo: Callable[[Any], None] | None = None
    ) -> None:
        """Interrupt it and wait until it has undone what it did."""
        self.interrupt()
        end_s = time.monotonic() + _UNDONE_S
        with suppress(VmctlError):
            while not self.over and wire.readable([self._socket], max(0.0, end_s - time.monotonic())):
                for event, values in self.events():
                    if event == wire.DONE and undo is not None:
                        undo(values)
                    elif event not in (wire.DONE, "begun") and seen is not None:
                        seen(event, values)
        self.close()


def ask(verb: str, **given: Any) -> Any:
    """Do a request and return its values. Raises the errors of vmctl."""
    return Call(verb, given).result()


def watched(calls: list[Call]) -> None:
    """Let each call of this thread from now on be appended to a list, so that another thread can interrupt it."""
    _of_thread.calls = calls
