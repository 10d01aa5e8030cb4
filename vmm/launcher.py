"""A forked child that holds the libvirt connection for one start.

Why a process of its own: the embedded driver can be opened for one root only, once per process; the child enters the
network namespace and the cgroup in which QEMU is to be born, and the caller stays where it is; and the connection is
opened before the boot clock runs. The child inherits the descriptor with the instance's lock: when the caller is
killed in the middle of a start, nobody else touches the instance before the child is done.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from vmctl.errors import UnavailableError, VmctlError

if TYPE_CHECKING:
    from vmm.connection import Connection


class Order(NamedTuple):
    """What the child is told to start."""

    name: str
    xml: str
    cgroup: str
    network: str  # as the workload file has it


class Launcher:
    """The caller's end. The child ends with it: a closed socket is its order to leave."""

    def __init__(self, open_uri: Callable[[], str], emulator: str, domain_type: str) -> None:
        """Fork; the child opens libvirt at once, with the URI that `open_uri` returns there."""
        self._socket, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            _child(theirs, lambda peer: _serve(peer, open_uri(), emulator, domain_type))
        theirs.close()

    def opened(self) -> None:
        """Wait until the child is ready for an order. Raises what stopped it."""
        _receive(self._socket)

    def create(self, order: Order) -> dict[str, int]:
        """Start the domain, wait until QEMU runs it and return what it was given. Raises VmctlError."""
        _send(self._socket, order._asdict())
        return _receive(self._socket)

    def close(self) -> None:
        """Let the child go and wait for its end."""
        self._socket.close()
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0


def ask(question: Callable[[], str]) -> str:
    """Return what `question` returns in a forked child, which may open libvirt. Raises what it raised there."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _child(theirs, lambda peer: _send(peer, {"answer": question()}))
    theirs.close()
    try:
        return str(_receive(ours)["answer"])
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _serve(peer: socket.socket, uri: str, emulator: str, domain_type: str) -> None:
    from vmm.connection import Connection

    connection = Connection(uri)
    connection.probe(emulator, domain_type)
    _send(peer, {})
    if line := _read_line(peer):
        _send(peer, _launch(connection, Order(**json.loads(line))))


def _launch(connection: Connection, order: Order) -> dict[str, int]:
    """Start QEMU in its cgroup and, if the guest has a network, in the network's namespace."""
    from vmctl.linux.cgroups import Cgroup
    from vmctl.net import network_of

    network = network_of(order.network)
    Cgroup(order.cgroup).join()
    with network.entered() if network else nullcontext():
        return connection.create(order.name, order.xml)


def _child(peer: socket.socket, work: Callable[[socket.socket], None]) -> None:
    """Do the work, tell the parent of a failure, and end without returning into the parent's code."""
    with ExitStack() as stack:
        stack.callback(os._exit, 0)
        # A Ctrl-C is for the command, which decides; here it would only cut a start in two.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        try:
            work(peer)
        except BrokenPipeError:
            pass  # the parent is gone
        except VmctlError as error:
            unavailable = isinstance(error, UnavailableError)
            _send(peer, {"error": str(error), "hint": error.hint, "detail": error.detail, "unavailable": unavailable})
        except Exception as error:
            _send(
                peer, {"error": f"libvirt's process failed: {error!r}", "hint": "", "detail": "", "unavailable": False}
            )


def _send(peer: socket.socket, message: dict[str, Any]) -> None:
    peer.sendall(json.dumps(message).encode() + b"\n")


def _receive(peer: socket.socket) -> dict[str, Any]:
    line = _read_line(peer)
    if not line:
        raise VmctlError("libvirt's process ended without a word", hint="try again with LIBVIRT_DEBUG=1")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        kind = UnavailableError if answer["unavailable"] else VmctlError
        raise kind(answer["error"], hint=answer["hint"], detail=answer["detail"])
    return answer


def _read_line(peer: socket.socket) -> bytes:
    """Return one line, or nothing when the other side is gone."""
    line = b""
    while not line.endswith(b"\n"):
        part = peer.recv(65536)
        if not part:
            return b""
        line += part
    return line
