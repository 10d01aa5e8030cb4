"""Published ports: sockets that listen on the host's side, handed to a forwarder on the instance's side.

The sockets are opened here, in the caller, so that a taken port is an error at once and names who has it.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import ExitStack

from vmctl.backend import Problem
from vmctl.errors import ConflictError, UnavailableError, VmctlError
from vmctl.instance import Instance
from vmctl.linux.processes import start_time
from vmctl.named import TYPE_CHECKING
from vmctl.net import forwarder
from vmctl.net.connect import vantage
from vmctl.net.holders import holder_of
from vmctl.workload import Port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

BACKLOG = 1024


def check_free(ports: Sequence[Port]) -> list[Problem]:
    """Return a problem for each port that cannot be had now, saying who holds it. All are let go again."""
    problems = []
    with ExitStack() as stack:
        for port in ports:
            try:
                stack.enter_context(_listen(port))
            except VmctlError as error:
                problems.append(Problem(str(error), error.hint))
    return problems


def publish(inst: Instance, target: str) -> None:
    """Start the forwarder from the ports of the workload to the address `target`; none where there is nothing to do.

    A loopback `target` is a workload without a network of its own: a port that has the same number on both sides is
    then the workload's to open. Raises ConflictError where a port is taken, UnavailableError where it is refused.
    """
    ports = [port for port in inst.work.ports if not (target.startswith("127.") and port.host_port == port.port)]
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
        pid = _spawn(inst, target, [str(wait_fd), *inherited])
        # It waits for the go: killed before the next line was written, this process takes the forwarder along.
        inst.journal.record("process", pid=pid, start=start_time(pid) or 0, role="forwarder")
        os.write(go_fd, b"\n")


def _listen(port: Port) -> socket:
    """Return a socket that listens at the host's side of a port."""
    import socket

    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port.protocol == "tcp":  # else the last connections of the instance before would keep us out for a minute
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((port.address, port.host_port))
        if port.protocol == "tcp":
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _explain(port, error) from error
    return listener


def _explain(port: Port, error: OSError) -> VmctlError:
    what = f"the port {port.address}:{port.host_port}/{port.protocol}"
    if error.errno == errno.EADDRINUSE:
        return ConflictError(f"{what} is taken by {holder_of(port)}", hint="stop that, or publish another port")
    if error.errno == errno.EADDRNOTAVAIL:
        return UnavailableError(f"{what} has an address this host does not have", hint="`ip address` lists them")
    if error.errno == errno.EACCES:
        return UnavailableError(f"{what} is root's", hint="publish a port above 1023")
    return UnavailableError(f"{what} cannot be opened: {error.strerror or error}")


def _spawn(inst: Instance, target: str, arguments: list[str]) -> int:
    log = (os.POSIX_SPAWN_OPEN, 2, inst.path("forwarder.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
    argv = [sys.executable, "-I", "-S", forwarder.program_files()[0], inst.name, target, *arguments]
    with vantage(target):  # a child is born in the network namespace of the thread that spawns it
        return os.posix_spawn(
            sys.executable, argv, os.environ, file_actions=[null, (os.POSIX_SPAWN_DUP2, 0, 1), log], setsid=True
        )
