"""Published ports: sockets that listen on the host's side, passed to a forwarder on the instance's side.

The sockets are opened here, in the caller, so that a port in use is an error at once, with the name of its user.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys
from contextlib import ExitStack

from vmctl import trace
from vmctl.errors import ConflictError, UnavailableError, VmctlError
from vmctl.linux.processes import start_time
from vmctl.named import TYPE_CHECKING
from vmctl.net.connect import near
from vmctl.spec.workload import Port

if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

    from vmctl.journal import Journal

BACKLOG = 1024
MOST_EXPOSED = 256  # ports of an image that are published because it exposes them


def refusals(ports: Sequence[Port]) -> list[VmctlError]:
    """Return an error for each port that cannot be opened now, with the name of its user. All are closed again."""
    errors = []
    with ExitStack() as stack:
        for port in each(ports):
            try:
                stack.callback(_listen(port)[0].close)
            except VmctlError as error:
                errors.append(error)
    return errors


def each(ports: Sequence[Port]) -> list[Port]:
    """Return the ports one by one, those of a certain number first: a free one that is chosen is none of them."""
    return sorted((one for port in ports for one in port.each()), key=lambda one: (not one.host_port, one.spare))


def exposed(ports: Sequence[str], published: Sequence[Port]) -> list[Port]:
    """Return the ports of an image, such as `80/tcp`, that are not published yet, each to a free port of the host."""
    known = {(one.port, one.protocol) for one in each(published)}
    found = []
    for text in ports:
        number, _, protocol = text.partition("/")
        first, _, last = number.partition("-")
        if protocol in ("", "tcp", "udp") and first.isdigit() and (last or first).isdigit():
            numbers = range(max(1, int(first)), min(65535, int(last or first)) + 1)
            found += [Port("127.0.0.1", 0, one, protocol or "tcp") for one in numbers]  # type: ignore[arg-type]
    return [one for one in dict.fromkeys(found) if (one.port, one.protocol) not in known][:MOST_EXPOSED]


def publish(name: str, ports: Sequence[Port], target: str, journal: Journal, log: str) -> list[Port]:
    """Start the forwarder from ports of the host to the address `target` of the instance `name`, if it is needed.

    Return the ports one by one, with the numbers that they got. A loopback `target` is a workload in the host's
    network: it opens a port with the same number on both sides itself. `log` is the file for the forwarder's errors.
    Raises ConflictError if a port is in use, UnavailableError if it is refused.
    """
    wanted = each(ports)
    own = [port for port in wanted if target.startswith("127.") and port.host_port == port.port]
    wanted = [port for port in wanted if port not in own]
    if not wanted:
        return own
    with ExitStack() as stack:
        listeners, opened = [], []
        for port in wanted:
            listener, number = _listen(port)
            stack.callback(listener.close)
            listeners.append(listener)
            opened.append(port._replace(host_port=number, spare=0))
        wait_fd, go_fd = os.pipe()
        stack.callback(os.close, wait_fd)
        stack.callback(os.close, go_fd)
        inherited = [
            f"{port.protocol}:{sock.fileno()}:{port.port}" for port, sock in zip(opened, listeners, strict=True)
        ]
        for fd in (wait_fd, *(sock.fileno() for sock in listeners)):
            os.set_inheritable(fd, True)
        # A child is born in the network namespace of the thread that spawns it.
        pid = near(target, lambda: _spawn([name, target, str(wait_fd), *inherited], log))
        # It waits for the go: if this process is killed before it has written the next line, the forwarder ends too.
        journal.record_process(pid, start_time(pid), "forwarder")
        os.write(go_fd, b"\n")
    return [*own, *opened]


def _listen(port: Port) -> tuple[socket, int]:
    """Return a socket that listens on the host's side of a port, and its number."""
    for host_port in range(port.host_port, port.host_port + port.spare + 1):
        try:
            listener = _listener(port, host_port)
            return listener, listener.getsockname()[1]
        except OSError as error:
            if error.errno == errno.EADDRINUSE and host_port < port.host_port + port.spare:
                continue
            raise _explain(port, error) from error
    raise ValueError(port)


def _listener(port: Port, host_port: int) -> socket:
    family = _socket.AF_INET6 if ":" in port.address else _socket.AF_INET
    listener = _socket.socket(family, _socket.SOCK_DGRAM if port.protocol == "udp" else _socket.SOCK_STREAM)
    try:
        if family == _socket.AF_INET6:
            listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        if port.protocol == "tcp":  # else the last connections of the instance before block the port for a minute
            listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind((port.address, host_port))
        if port.protocol == "tcp":
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _explain(port: Port, error: OSError) -> VmctlError:
    what = f"{port.shown_address()}:{port.host_port}/{port.protocol}"
    if error.errno == errno.EADDRINUSE and port.spare:
        last = port.host_port + port.spare
        return ConflictError(f"each of the ports {port.address}:{port.host_port}-{last}/{port.protocol} is taken")
    if error.errno == errno.EADDRINUSE:
        from vmctl.net.holders import holder_of

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
    argv = [sys.executable, "-I", "-S", _program(), *arguments]
    if trace.on:
        from vmctl.linux import commands

        trace.step(commands.join(argv), "the forwarder, with descriptors of this process")
    actions = [null, (os.POSIX_SPAWN_DUP2, 0, 1), stderr]
    # LC_ALL=C: the tables of a locale take memory; nothing of the caller's environment is kept for days
    return os.posix_spawn(sys.executable, argv, {"LC_ALL": "C"}, file_actions=actions, setsid=True)


def _program() -> str:
    """Return the file of the forwarder, compiled if possible: that saves 10 ms and 1 MB there, and an import here."""
    folder, name = os.path.split(__spec__.cached if __spec__ and __spec__.cached else "")
    compiled = os.path.join(folder, name.replace("ports.", "forwarder.", 1))
    source = os.path.join(os.path.dirname(__file__), "forwarder.py")
    try:
        is_new = os.stat(compiled).st_mtime_ns > os.stat(source).st_mtime_ns
        if is_new and os.access(compiled, os.R_OK):  # root may have compiled it for itself only
            return compiled
    except OSError:  # not compiled
        pass
    from vmctl.net import forwarder

    return forwarder.program_files()[0]
