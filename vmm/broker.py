"""The part of a guest's recorder that connects commands with the guest's agent.

QEMU gives a port one connection, and `vmctl exec` runs many times: so the recorder has that connection, and each
`vmctl exec` connects to the recorder. It gives each a channel and passes frames on, see vmctl/attach/frames.py.

The guest is hostile: frames are checked, and what one of them sends to a command that does not read is limited by the
window that both sides know. A guest that ignores it loses that command; so no guest can make the recorder grow.
"""

from __future__ import annotations

import _socket  # `socket` would import `enum` and `selectors`, 1 MB
import os
import select

from vmctl.attach.frames import (
    DETACH,
    HEADER_BYTES,
    HELLO,
    LEAVE,
    NONCE_BYTES,
    PAYLOAD_BYTES,
    SYNC,
    WINDOW_BYTES,
    frame,
    take,
)

CLIENTS = 256  # more wait in the queue of the socket
_READ_BYTES = 1 << 16
_AGENT_BYTES = 1 << 18  # of frames that QEMU has not taken yet; no command is read while there are more
_CLIENT_BYTES = 4 * WINDOW_BYTES  # both streams and the headers of small frames


class _Peer:
    """A connection: bytes that have arrived, and bytes that wait to be sent."""

    def __init__(self, fd: int, channel: int) -> None:
        self.fd, self.channel = fd, channel
        self.detached = False  # its command runs on without it
        self.arrived, self.waiting = bytearray(), bytearray()
        os.set_blocking(fd, False)

    def flush(self) -> None:
        """Send what can be sent. Raises OSError if the other side has gone."""
        try:
            while self.waiting:
                del self.waiting[: os.write(self.fd, self.waiting)]
        except BlockingIOError:
            pass

    def receive(self) -> bool:
        """Read what is there; return False at the end."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.arrived += data
        return bool(data)


class Broker:
    """Passes frames between the guest's agent and any number of commands."""

    def __init__(self, poller: select.poll, listener: int, path: str) -> None:
        """`listener` is the listening socket for commands, `path` the socket of QEMU's port."""
        self._poller, self._path = poller, path
        self._listener = _socket.socket(fileno=listener)
        self._agent: _Peer | None = None
        self._ready = False  # the agent has greeted
        self._clients: dict[int, _Peer] = {}  # by descriptor
        self._channels: dict[int, _Peer] = {}
        self._last_channel = 0
        poller.register(listener, select.POLLIN)

    def connect(self) -> None:
        """Connect to QEMU's port, which exists as soon as QEMU runs."""
        if self._agent is not None:
            return
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            return
        self._agent = _Peer(connection.detach(), 0)
        self._poller.register(self._agent.fd, select.POLLIN)

    def handle(self, fd: int, events: int) -> None:
        """Handle what poll(2) has reported for a descriptor that is not of a log."""
        if fd == self._listener.fileno():
            self._accept()
        elif self._agent is not None and fd == self._agent.fd:
            self._handle_agent(self._agent, events)
        elif fd in self._clients:
            self._handle_client(self._clients[fd], events)
        self._watch_all()

    def _accept(self) -> None:
        self.connect()
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # `accept` is that of the module `socket`
        except OSError:
            return  # it has gone, or this process has no descriptor left
        self._last_channel = self._last_channel % 0xFFFFFFFF + 1
        client = _Peer(fd, self._last_channel)
        self._clients[fd] = self._channels[client.channel] = client
        self._poller.register(fd, 0)

    def _handle_agent(self, agent: _Peer, events: int) -> None:
        try:
            if events & select.POLLOUT:
                agent.flush()
            if events & ~select.POLLOUT and not agent.receive():
                raise ConnectionResetError
            for channel, kind, payload in take(agent.arrived):
                self._from_agent(agent, channel, kind, payload)
        except (OSError, ValueError):  # QEMU has exited, or the guest sends no frames
            self._drop_agent()

    def _from_agent(self, agent: _Peer, channel: int, kind: int, payload: bytes) -> None:
        if kind == HELLO and channel == 0 and len(payload) == NONCE_BYTES:
            for client in list(self._clients.values()):  # of an earlier agent; those that wait have not been read
                if client.arrived or self._ready:
                    self._drop(client)
            self._ready = True
            agent.waiting[:] = frame(0, SYNC, payload)
            agent.flush()
        elif self._ready and channel in self._channels:
            client = self._channels[channel]
            client.waiting += frame(0, kind, payload)
            try:
                client.flush()
                if len(client.waiting) > _CLIENT_BYTES:
                    raise ConnectionResetError  # the guest ignores the window
            except OSError:
                self._leave(client)

    def _handle_client(self, client: _Peer, events: int) -> None:
        try:
            if events & select.POLLOUT:
                client.flush()
            if events & ~select.POLLOUT and not client.receive():
                raise ConnectionResetError
            self._pass_on(client)
        except (OSError, ValueError):
            self._leave(client)

    def _pass_on(self, client: _Peer) -> None:
        """Pass the frames of a command on to the agent. Raises OSError, ValueError."""
        if self._agent is None or not self._ready:
            return
        for _, kind, payload in take(client.arrived):
            self._agent.waiting += frame(client.channel, kind, payload)
            client.detached |= kind == DETACH
        self._agent.flush()

    def _leave(self, client: _Peer) -> None:
        """Forget a caller that has gone, and let the agent end its command, unless it has detached."""
        try:
            if client.receive():  # it was noticed by what could not be sent
                self._pass_on(client)
        except (OSError, ValueError):
            pass
        self._drop(client)
        if self._agent is not None and self._ready and not client.detached:
            self._agent.waiting += frame(client.channel, LEAVE)

    def _drop(self, client: _Peer) -> None:
        del self._clients[client.fd], self._channels[client.channel]
        self._poller.unregister(client.fd)
        os.close(client.fd)

    def _drop_agent(self) -> None:
        assert self._agent is not None
        self._poller.unregister(self._agent.fd)
        os.close(self._agent.fd)
        self._agent, self._ready = None, False
        for client in list(self._clients.values()):
            self._drop(client)

    def _watch_all(self) -> None:
        """Wait for what can be passed on: nothing is read from commands that QEMU does not take."""
        agent = self._agent
        self._poller.modify(self._listener.fileno(), select.POLLIN if len(self._clients) < CLIENTS else 0)
        takes = agent is not None and self._ready and len(agent.waiting) < _AGENT_BYTES
        if agent is not None:
            self._poller.modify(agent.fd, select.POLLIN | (select.POLLOUT if agent.waiting else 0))
        for client in self._clients.values():
            wanted = (select.POLLIN if takes else 0) | (select.POLLOUT if client.waiting else 0)
            self._poller.modify(client.fd, wanted)


def listen(path: str) -> int:
    """Return the descriptor of a listening socket for `Broker`. Raises OSError."""
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        server.bind(path)
        server.listen(CLIENTS)
        server.setblocking(False)
        return server.detach()
    except BaseException:
        server.close()
        raise


assert HEADER_BYTES + PAYLOAD_BYTES < _READ_BYTES
