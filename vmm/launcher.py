"""A forked child with the libvirt connection for one start.

It is a separate process for three reasons. The embedded driver can be opened for one root only, and once per process.
The child enters the network namespace and the cgroup of QEMU, and the caller does not. And the connection is opened
before the start is timed. The child inherits the descriptor with the instance's lock: if the caller is killed during a
start, no other command can change the instance until the child has finished.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from vmctl import trace
from vmctl.errors import UnavailableError, VmctlError
from vmm.confinement import Cell

if TYPE_CHECKING:
    from vmm.connection import Connection


class StartRequest(NamedTuple):
    """The domain that the child is to start."""

    name: str
    xml: str
    cgroup: str
    network: str  # the name of its first network, or `none`
    cell: Cell | None  # how QEMU is confined; None if a libvirt daemon starts it
    paused: bool = False  # its processors do not run before somebody lets them


class Launcher:
    """The caller's end of the connection with the child; the child exits when it is closed."""

    def __init__(self, open_uri: Callable[[], str], emulator: str, domain_type: str) -> None:
        """Fork the child, which opens libvirt at once, with the URI that `open_uri` returns in the child."""
        self._socket, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            _child(theirs, lambda peer: _serve(peer, open_uri(), emulator, domain_type))
        theirs.close()

    def opened(self) -> None:
        """Wait until the child has opened libvirt. Raises the error if it fails."""
        _receive(self._socket)

    def create(self, request: StartRequest) -> dict[str, int]:
        """Start the domain, wait until QEMU runs it and return its actual size. Raises VmctlError."""
        _send(self._socket, request._asdict())
        return _receive(self._socket)

    def close(self) -> None:
        """Close the connection and wait for the end of the child."""
        self._socket.close()
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0


def ask(question: Callable[[], str]) -> str:
    """Call `question` in a forked child, which may open libvirt, and return its result or raise its error."""
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

    if trace.on:
        trace.comment(f"libvirt opens {uri}")
    connection = Connection(uri)
    connection.check_user()
    connection.probe(emulator, domain_type)
    _send(peer, {})
    if line := _read_line(peer):
        request = StartRequest(**json.loads(line))
        _send(peer, _launch(connection, request._replace(cell=request.cell and Cell(*request.cell))))


def _launch(connection: Connection, request: StartRequest) -> dict[str, int]:
    """Start QEMU in its cgroup and, if the guest has a network, in the network's namespace.

    Nothing can be imported after `confinement.enter`: Python's files are out of reach then.
    """
    from vmctl.instances.folder import Home
    from vmctl.linux import commands, syscalls
    from vmctl.linux.cgroups import Cgroup
    from vmctl.net import network_of
    from vmm import confinement, files

    network = network_of(request.network)
    Cgroup(request.cgroup).join()
    if network:
        network.enter()  # libvirt opens the tap, in its namespace; this process goes nowhere else afterwards
    if trace.on:
        path = files.domain(Home(request.name, ""))
        trace.step(commands.join(["virsh", "--connect", connection.uri, "create", path]))
        trace.on = False  # the steps below have no equal in a shell: the next program is libvirt's
    if request.paused:  # it begins with saved memory, of which it is to copy pages of 4 KiB, not of 2 MiB
        syscalls.prctl(syscalls.PR_SET_THP_DISABLE, 1)
    if request.cell:
        try:
            confinement.enter(request.cell, without_network=network is None)
        except OSError as error:
            raise UnavailableError(
                f"QEMU of {request.name} cannot be confined: {error.strerror} ({error.filename})",
                hint="this needs Linux 5.12, with mount, IPC, UTS and cgroup namespaces",
            ) from None
    actual = connection.create(request.name, request.xml, paused=request.paused)
    if request.cell:
        confinement.hide(request.cell)
    return actual


def _child(peer: socket.socket, work: Callable[[socket.socket], None]) -> None:
    """Do the work, send an error to the parent if it fails, and exit without returning into the parent's code."""
    with ExitStack() as stack:
        stack.callback(os._exit, 0)
        # The command handles Ctrl-C; here it would only interrupt a start halfway.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # QEMU's user reaches a key through libvirt's folders; they are below a folder that is closed for others
        os.umask(0o022)
        try:
            work(peer)
        except BrokenPipeError:
            pass  # the parent has exited
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
        raise VmctlError("libvirt's process exited without a message", hint="try again with LIBVIRT_DEBUG=1")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        kind = UnavailableError if answer["unavailable"] else VmctlError
        raise kind(answer["error"], hint=answer["hint"], detail=answer["detail"])
    return answer


def _read_line(peer: socket.socket) -> bytes:
    """Return one line, or nothing if the other side is closed."""
    line = b""
    while not line.endswith(b"\n"):
        part = peer.recv(65536)
        if not part:
            return b""
        line += part
    return line
