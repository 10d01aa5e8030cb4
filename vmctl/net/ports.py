"""Published ports: sockets that listen on the host's side, passed to a forwarder on the instance's side.

The sockets are opened here, in the caller, so that a port in use is an error at once, with the name of its user.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import ExitStack

from vmctl import trace
from vmctl.errors import ConflictError, UnavailableError, VmctlError
from vmctl.linux.processes import start_time
from vmctl.named import TYPE_CHECKING
from vmctl.net import forwarder
from vmctl.net.connect import near
from vmctl.net.holders import holder_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

    from vmctl.journal import Journal
    from vmctl.spec.workload import Port

BACKLOG = 1024


def refusals(ports: Sequence[Port]) -> list[VmctlError]:
    """Return an error for each port that cannot be opened now, with the name of its user. All are closed again."""
    errors = []
    with ExitStack() as stack:
        for port in ports:
            try:
                stack.enter_context(_listen(port))
            except VmctlError as error:
                errors.append(error)
    return errors


def publish(name: str, ports: Sequence[Port], target: str, journal: Journal, log: str) -> None:
    """Start the forwarder from ports of the host to the address `target` of the instance `name`, if it is needed.

    A loopback `target` is a workload in the host's network: it opens a port with the same number on both sides itself.
    `log` is the file for the forwarder's errors. Raises ConflictError if a port is in use, UnavailableError if it is
    refused.
    """
    ports = [port for port in ports if not (target.startswith("127.") and port.host_port == port.port)]
    if not ports:
        return
    with ExitStack() as stack:
        listeners = [stack.enter_context(_listen(port)) for port in ports]
        wait_fd, go_fd = os.pipe()
        stack.callback(os.close, wait_fd)
        stack.callback(os.close, go_fd)
        inherited = [
            f"{port.protocol}:{sock.fileno()}:{port.port}" for port, sock in zip(ports, listeners, strict=True)
        ]
        for fd in (wait_fd, *(sock.fileno() for sock in listeners)):
            os.set_inheritable(fd, True)
        # A child is born in the network namespace of the thread that spawns it.
        pid = near(target, lambda: _spawn([name, target, str(wait_fd), *inherited], log))
        # It waits for the go: if this process is killed before it has written the next line, the forwarder ends too.
        journal.record_process(pid, start_time(pid), "forwarder")
        os.write(go_fd, b"\n")


def _listen(port: Port) -> socket:
    """Return a socket that listens on the host's side of a port."""
    import socket

    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.protocol == "tcp":  # else the last connections of the instance before block the port for a minute
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((port.address, port.host_port))
        if port.protocol == "tcp":
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _explain(port, error) from error
    return listener


def _explain(port: Port, error: OSError) -> VmctlError:
    what = f"{port.address}:{port.host_port}/{port.protocol}"
    if error.errno == errno.EADDRINUSE:
        return ConflictError(
            f"the port {what} is taken by {holder_of(port)}", hint="stop that first, or publish another port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UnavailableError(f"this host does not have the address of {what}", hint="`ip address` lists them")
    if error.errno == errno.EACCES:
        return UnavailableError(f"binding {what} needs root (ports below 1024)", hint="publish a port above 1023")
    return UnavailableError(f"the port {what} cannot be opened: {error.strerror or error}")


def _spawn(arguments: list[str], log: str) -> int:
    stderr = (os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
    argv = [sys.executable, "-I", "-S", forwarder.program_files()[0], *arguments]
    if trace.on:
        from vmctl.linux import commands

        trace.step(commands.join(argv), "the forwarder, with descriptors of this process")
    actions = [null, (os.POSIX_SPAWN_DUP2, 0, 1), stderr]
    return os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
