"""The process behind published ports: it accepts on the host's side and connects on the instance's side.

    python -I -S FORWARDER NAME TARGET GO-FD PROTOCOL:LISTENING-FD:PORT ...

It is started in the instance's network namespace with sockets that listen in the host's, so neither network needs a
rule. It does nothing until a byte arrives on GO-FD. At end of file there it exits: its parent died before it could
record that this process exists. It imports C modules only, and nothing of vmctl, and so stays below 10 MB.

TCP bytes go from socket to pipe to socket by splice(2) and are never copied into this process. A pipe is borrowed only
while bytes are in transit, so an idle connection costs two descriptors. UDP has one socket per client, for the answers.
"""

from __future__ import annotations

import _socket as net
import os
import sys
from _socket import socket
from fcntl import F_SETPIPE_SZ, fcntl
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from select import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll
from time import monotonic

TYPE_CHECKING = False  # the typing module would cost 2 MB
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Handler(Protocol):
        """An object with descriptors in the loop."""

        def handle(self, fd: int) -> None:
            """React to an event on one of its descriptors."""


SPLICE_BYTES = 1 << 20  # more than fits into a pipe: each splice takes what there is
TURNS = 16  # splices for one connection before the others get their turn
DATAGRAM_BYTES = 65536
BATCH = 64  # connections accepted, or datagrams moved, before the others get their turn
SPARE_PIPES = 64
UDP_IDLE_S = 60.0
UDP_CLIENTS = 1024
DESCRIPTORS_EACH = 6  # for a busy TCP connection: two sockets, two pipes
RESET = (1).to_bytes(4, sys.byteorder) + bytes(4)  # struct linger: on, 0 s


class Loop:
    """Passes events to handlers, with one epoll(7) for all."""

    def __init__(self) -> None:
        self.epoll = epoll()
        self.handlers: dict[int, Handler] = {}
        self.listeners: set[int] = set()
        self.unfinished: dict[Connection, None] = {}  # their turn is over, and there may be more bytes
        self.relays: list[Relay] = []

    def add(self, sock: socket, handler: Handler, events: int) -> None:
        """Watch a socket until `close`."""
        self.handlers[sock.fileno()] = handler
        self.epoll.register(sock.fileno(), events)

    def listen(self, sock: socket, handler: Handler) -> None:
        """Watch a socket whose events open other sockets."""
        self.listeners.add(sock.fileno())
        self.add(sock, handler, EPOLLIN)

    def close(self, sock: socket) -> None:
        """Close a socket; epoll forgets it by itself."""
        self.handlers.pop(sock.fileno(), None)
        sock.close()

    def run(self) -> None:
        """Handle events until killed."""
        while True:
            events = self.epoll.poll(0 if self.unfinished else UDP_IDLE_S / 4 if self.relays else None)
            again, self.unfinished = self.unfinished, {}
            for connection in again:
                connection.advance()
            # Listeners last: the sockets they open may get the numbers of sockets that were closed just before.
            for fd, _ in sorted(events, key=lambda event: event[0] in self.listeners):
                if handler := self.handlers.get(fd):
                    handler.handle(fd)
            for relay in self.relays:
                relay.forget_silent()


class Pipes:
    """Pipes to splice through; a few empty ones are kept for later."""

    def __init__(self) -> None:
        self.spare: list[tuple[int, int]] = []

    def borrow(self) -> tuple[int, int]:
        """Return the ends of an empty pipe."""
        if self.spare:
            return self.spare.pop()
        pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl(pipe[0], F_SETPIPE_SZ, SPLICE_BYTES)
        except OSError:  # this user's pipes have reached /proc/sys/fs/pipe-user-pages-soft: a small one does, too
            pass
        return pipe

    def give_back(self, pipe: tuple[int, int], empty: bool) -> None:
        """Keep an empty pipe for later, close any other."""
        if empty and len(self.spare) < SPARE_PIPES:
            self.spare.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])


class Flow:
    """One direction of a connection: from socket to pipe to socket, with a half-close at the end."""

    def __init__(self, source: socket, sink: socket, pipes: Pipes) -> None:
        self.source, self.sink, self.pipes = source, sink, pipes
        self.pipe: tuple[int, int] | None = None
        self.waiting_bytes = 0  # in the pipe
        self.done = False

    def pump(self) -> bool:
        """Move what can be moved now; return whether there may be more. Raises OSError if an end is broken."""
        try:
            for _ in range(TURNS):
                if self.done:
                    return False
                self._fill()
                self._drain()
            return True
        except BlockingIOError:
            return False
        finally:
            if not self.waiting_bytes:
                self.release()

    def release(self) -> None:
        """Give the pipe back."""
        if self.pipe:
            self.pipes.give_back(self.pipe, empty=not self.waiting_bytes)
            self.pipe = None

    def _fill(self) -> None:
        if self.waiting_bytes:
            return
        self.pipe = self.pipe or self.pipes.borrow()
        self.waiting_bytes = _splice(self.source.fileno(), self.pipe[1], SPLICE_BYTES)
        if not self.waiting_bytes:
            self.done = True
            self.sink.shutdown(net.SHUT_WR)

    def _drain(self) -> None:
        while self.waiting_bytes and self.pipe:
            self.waiting_bytes -= _splice(self.pipe[0], self.sink.fileno(), self.waiting_bytes)


class Connection:
    """One TCP client and its connection to the instance."""

    def __init__(self, service: Service, client: socket) -> None:
        self.service, self.loop, self.client = service, service.loop, client
        self.server = socket(net.AF_INET, net.SOCK_STREAM | net.SOCK_NONBLOCK)
        self.flows = (Flow(client, self.server, service.pipes), Flow(self.server, client, service.pipes))
        self.connected = False
        for sock in (client, self.server):
            sock.setsockopt(net.IPPROTO_TCP, net.TCP_NODELAY, 1)
            sock.setsockopt(net.SOL_SOCKET, net.SO_KEEPALIVE, 1)

    def open(self) -> None:
        """Start to connect; the client's bytes wait in its socket meanwhile."""
        self.server.connect_ex(self.service.target)  # an immediate refusal is an event, too
        # Edge-triggered: both ends are pumped until they block, so no event has to be re-armed.
        for sock in (self.server, self.client):
            self.loop.add(sock, self, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

    def handle(self, fd: int) -> None:
        """React to an event of either end."""
        if not self.connected and fd == self.server.fileno():
            if self.server.getsockopt(net.SOL_SOCKET, net.SO_ERROR):
                self.close()  # nothing listens inside: the client sees its connection end
                return
            self.connected = True
        self.advance()

    def advance(self) -> None:
        """Move bytes both ways. Close when both have ended; reset if one end breaks, as its bytes are incomplete."""
        if not self.connected:
            return
        try:
            more = [flow.pump() for flow in self.flows]
        except OSError:
            for sock in (self.client, self.server):
                sock.setsockopt(net.SOL_SOCKET, net.SO_LINGER, RESET)
            self.close()
            return
        if any(more):
            self.loop.unfinished[self] = None
        elif all(flow.done for flow in self.flows):
            self.close()

    def close(self) -> None:
        """Close both ends."""
        self.connected = False
        for flow in self.flows:
            flow.release()
        self.loop.close(self.client)
        self.loop.close(self.server)
        self.service.left()


class Service:
    """A published TCP port."""

    def __init__(self, loop: Loop, listener: socket, target: tuple[str, int], room: int) -> None:
        self.loop, self.listener, self.target, self.room = loop, listener, target, room
        self.pipes = Pipes()
        loop.listen(listener, self)

    def handle(self, fd: int) -> None:
        """Accept clients; when there is no room left they wait in the kernel's queue."""
        for _ in range(BATCH):
            if self.room == 0:
                self.loop.epoll.modify(fd, 0)
                return
            try:
                client = _accept(self.listener)
            except OSError:  # none left, or one that has gone again
                return
            self.room -= 1
            Connection(self, client).open()

    def left(self) -> None:
        """Make room for another client: a connection was closed."""
        self.room += 1
        if self.room == 1:
            self.loop.epoll.modify(self.listener.fileno(), EPOLLIN)


class Peer:
    """One UDP client: its socket to the instance, so that answers can be passed back to it."""

    def __init__(self, relay: Relay, address: Any) -> None:
        self.relay, self.address, self.heard_s = relay, address, 0.0
        self.socket = socket(net.AF_INET, net.SOCK_DGRAM | net.SOCK_NONBLOCK)
        self.socket.connect(relay.target)
        relay.loop.add(self.socket, self, EPOLLIN)

    def send(self, datagram: bytes) -> None:
        """Pass a datagram to the instance; one that cannot be sent is lost, as datagrams may be."""
        self.heard_s = monotonic()
        try:
            self.socket.send(datagram)
        except OSError:
            pass

    def handle(self, fd: int) -> None:
        """Pass answers to the client."""
        try:
            for _ in range(BATCH):
                self.relay.listener.sendto(self.socket.recv(DATAGRAM_BYTES), self.address)
        except OSError:  # none left, or nothing listens inside
            pass


class Relay:
    """A published UDP port. Clients are kept in the order of their last datagram."""

    def __init__(self, loop: Loop, listener: socket, target: tuple[str, int]) -> None:
        self.loop, self.listener, self.target = loop, listener, target
        self.peers: dict[Any, Peer] = {}
        loop.listen(listener, self)
        loop.relays.append(self)

    def handle(self, fd: int) -> None:
        """Pass datagrams to the instance."""
        for _ in range(BATCH):
            try:
                datagram, address = self.listener.recvfrom(DATAGRAM_BYTES)
            except OSError:
                return
            peer = self.peers.pop(address, None) or Peer(self, address)
            self.peers[address] = peer
            peer.send(datagram)

    def forget_silent(self) -> None:
        """Forget clients that were silent for a minute and, if there are too many, the longest silent ones."""
        while self.peers:
            address, peer = next(iter(self.peers.items()))
            if len(self.peers) <= UDP_CLIENTS and monotonic() - peer.heard_s < UDP_IDLE_S:
                return
            self.loop.close(self.peers.pop(address).socket)


def program_files() -> list[str]:
    """Return the files from which this program can be started, the compiled one first: it saves 10 ms and 1 MB."""
    cached = __spec__.cached if __spec__ else None
    return [cached, __file__] if cached and os.access(cached, os.R_OK) else [__file__]


def main(target: str, go_fd: int, ports: list[str]) -> None:
    """Wait for the byte on `go_fd`, then forward until killed."""
    os.chdir("/")  # else the folder in which vmctl was called could not be unmounted
    if not os.read(go_fd, 1):
        return
    os.close(go_fd)
    published = [(protocol, int(fd), (target, int(port))) for protocol, fd, port in (p.split(":") for p in ports)]
    loop = Loop()
    room = _room([protocol for protocol, _, _ in published])
    for protocol, fd, inner in published:
        listener = socket(fileno=fd)
        listener.setblocking(False)
        if protocol == "udp":
            Relay(loop, listener, inner)
        else:
            Service(loop, listener, inner, room)
    loop.run()


def _room(protocols: list[str]) -> int:
    """Return how many connections each TCP port may have so that the descriptors never run out."""
    limit = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (limit, limit))
    for_tcp = limit - len(protocols) * 2 * SPARE_PIPES - UDP_CLIENTS * protocols.count("udp")
    return max(1, for_tcp // DESCRIPTORS_EACH // max(1, protocols.count("tcp")))


def _accept(listener: socket) -> socket:
    fd: int = listener._accept()[0]  # type: ignore[attr-defined]  # as socket.accept() does
    client = socket(fileno=fd)
    client.setblocking(False)
    return client


def _splice(source_fd: int, sink_fd: int, size_bytes: int) -> int:
    return os.splice(source_fd, sink_fd, size_bytes, flags=os.SPLICE_F_NONBLOCK)


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
