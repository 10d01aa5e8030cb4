"""A hub: passes the streams of a workload to any number of callers at a socket, and their input to the workload.

It is a part of the process that has the streams: the supervisor of a container, the recorder of a guest, or the parent
of a command. The frames are those of vmctl/attach/frames.py. What a caller has not taken waits here: the workload's
output is not read meanwhile, so nothing is lost; a caller that takes nothing for a while is dropped, unless it is the
owner, without whom the workload would not run. It imports very little, because supervisors are small.
"""

from __future__ import annotations

import _socket  # `socket` would import `enum` and `selectors`, 1 MB
import os
import select
import time

from vmctl.attach.connection import Connection
from vmctl.attach.frames import (
    CLOSING,
    CREDIT,
    DETACH,
    EXIT,
    INPUT,
    INPUT_CREDIT,
    INPUT_END,
    INPUT_GONE,
    PING,
    PONG,
    RESIZE,
    SIGNAL,
    STARTED,
    WINDOW_BYTES,
    frame,
    moment,
    number,
    numbers,
    take,
)
from vmctl.logs.timewriter import TimeFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SOCKET = "attach"  # in the run folder of an instance
CALLERS = 32  # more wait in the queue of the socket
STALL_S = 10.0  # after that a caller that takes no output is dropped
_LATER_BYTES = 1 << 20  # of output after the end of the workload, by other processes
_READ_BYTES = 1 << 16
END_OF_FILE = b"\x04"  # Ctrl-D, which the line discipline turns into the end of the input (termios(3), VEOF)


class Hub:
    """Passes frames between the callers and the streams of one workload."""

    def __init__(
        self,
        poller: select.poll,
        listener: int,
        target: int,
        outputs: Iterable[int],
        *,
        resize: Callable[[int, int, bool], object] | None = None,
        send: Callable[[int], object] | None = None,
        hang_up: Callable[[], object] | None = None,
        owned: bool = False,
    ) -> None:
        """Listen at a socket, and write input to `target`, which becomes non-blocking; -1: it comes later.

        `outputs` are the descriptors of stdout and stderr, which the caller reads and `poller` waits for; while output
        waits here, it does not.
        `resize` is called with columns, lines and whether the screen is to be drawn anew, if the workload has a
        terminal, `send` with signals. With `owned` the first caller is the owner; `hang_up` is called when it has gone
        without detaching.
        """
        self._poller, self._listener = poller, listener
        self._target, self._resize, self._send, self._hang_up = target, resize, send, hang_up
        self._owned = owned
        self.left = False  # the owner has detached, and the workload runs on
        self._callers: dict[int, Connection] = {}
        self._outputs, self._paused = list(outputs), False
        self._input_gone = False
        if target >= 0:
            os.set_blocking(target, False)
        self._waits = False  # whether poll(2) waits for `target`
        if listener >= 0:
            poller.register(listener, select.POLLIN)
        if owned and listener >= 0:
            self._accept()  # it may wait already, and must get the first output

    def takes_input(self) -> bool:
        """Return whether there is, or was, something that takes input."""
        return self._target >= 0 or self._input_gone

    def has_owner(self) -> bool:
        """Return whether the owner is connected."""
        return any(caller.owner for caller in self._callers.values())

    def take_input(self, target: int) -> None:
        """Write input to this descriptor from now on."""
        os.set_blocking(target, False)
        self._target = target
        self._give_input()

    def full(self) -> bool:
        """Return whether output waits for a caller, so no more is to be read from the workload."""
        return any(any(caller.later) for caller in self._callers.values())

    def wait_ms(self) -> int | None:
        """Return how long to wait for events at most."""
        return 1000 if self.full() else None

    def show(self, source: int, data: bytes) -> None:
        """Pass on what was read from one of the outputs."""
        for caller in list(self._callers.values()):
            caller.show(self._outputs.index(source), data)
            self._flush(caller)

    def handle(self, events: dict[int, int]) -> None:
        """Handle what poll(2) has reported, also for descriptors that are not of the hub; also if it is nothing."""
        if self._listener in events:
            self._accept()
        for fd, happened in events.items():
            self._serve(fd, happened)
        if self._waits and self._target in events:
            self._give_input(gone=not events[self._target] & select.POLLOUT)
        now = time.monotonic()
        for caller in list(self._callers.values()):
            if any(caller.later) and not caller.owner and now > caller.taken_s + STALL_S:
                self._drop(caller)
        self._watch_all()

    def finish(self, code: int | None = None) -> None:
        """Send all output, then the exit code, if there is one, and end the connections."""
        if self._listener >= 0:
            os.close(self._listener)
        self._settle(self.full)
        for caller in list(self._callers.values()):
            caller.waiting += frame(0, CLOSING, moment(time.time_ns()))
            if code is not None:
                caller.waiting += frame(0, EXIT, numbers(code, 0))
            self._flush(caller)
        self._settle(lambda: any(caller.waiting for caller in self._callers.values()))
        for caller in list(self._callers.values()):
            os.close(caller.fd)

    def room(self) -> bool:
        """Return whether the callers are close enough to show them output after the end of the workload."""
        return all(sum(map(len, caller.later)) < _LATER_BYTES for caller in self._callers.values())

    def _settle(self, busy: Callable[[], bool]) -> None:
        """Serve the callers, but for a limited time."""
        deadline_s = time.monotonic() + STALL_S
        while busy() and time.monotonic() < deadline_s:
            poller = select.poll()
            for caller in self._callers.values():
                poller.register(caller.fd, select.POLLIN | (select.POLLOUT if caller.waiting else 0))
            for fd, events in poller.poll(1000):
                self._serve(fd, events)

    def _accept(self) -> None:
        server = _socket.socket(fileno=self._listener)
        try:
            fd, _ = server._accept()  # type: ignore[attr-defined]  # `accept` is that of the module `socket`
        except OSError:
            return  # it has gone, or this process has no descriptor left
        finally:
            server.detach()
        self.adopt(fd)

    def adopt(self, fd: int) -> None:
        """Serve a caller at this connection."""
        caller = Connection(fd, owner=self._owned)
        self._owned = False
        self._callers[fd] = caller
        self._poller.register(fd, select.POLLIN)
        caller.waiting += frame(0, STARTED, moment(time.time_ns()))
        TimeFile.latest = None  # so that the log has the time of what is written from now on
        if self._input_gone:
            caller.waiting += frame(0, INPUT_GONE)
        self._flush(caller)

    def _serve(self, fd: int, events: int) -> None:
        caller = self._callers.get(fd)
        if caller is None:  # it is not of the hub, or has gone meanwhile
            return
        if events & select.POLLOUT:
            self._flush(caller)
        try:
            if events & ~select.POLLOUT:
                self._receive(caller)
        except (OSError, ValueError):
            self._leave(caller)

    def _receive(self, caller: Connection) -> None:
        """Handle what a caller has sent. Raises OSError at its end, ValueError for other bytes than frames."""
        try:
            data = os.read(caller.fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError
        caller.arrived += data
        for _, kind, payload in take(caller.arrived):
            if kind == DETACH:
                self.left |= caller.owner
                caller.owner = False
                raise ConnectionResetError
            self._take(caller, kind, payload)
        self._flush(caller)
        if len(caller.waiting) > 4 * WINDOW_BYTES:
            raise ValueError("more requests than answers that it takes")
        self._give_input()

    def _take(self, caller: Connection, kind: int, payload: bytes) -> None:
        stream = number(payload) & 1
        if kind == INPUT and not self._input_gone:
            caller.input += payload
            if len(caller.input) > WINDOW_BYTES:
                raise ValueError("more input than the window allows")
        elif kind == INPUT_END:
            caller.input_ended = True
        elif kind == CREDIT:
            caller.sent[stream] -= min(number(payload, 1), caller.sent[stream])
            caller.taken_s = time.monotonic()
            caller.send_more(stream)
        elif kind == RESIZE and self._resize is not None:
            self._resize(number(payload), number(payload, 1), bool(number(payload, 2)))
        elif kind == SIGNAL and self._send is not None:
            self._send(number(payload))
        elif kind == PING:
            caller.waiting += frame(0, PONG)

    def _give_input(self, *, gone: bool = False) -> None:
        """Write the input of all callers to the workload, as far as it takes it."""
        if self._target < 0:
            return
        for caller in list(self._callers.values()):
            if caller.owner and caller.input_ended and self._resize is not None:
                caller.input_ended = False
                caller.input += END_OF_FILE
            try:
                while caller.input and not gone:
                    written = os.write(self._target, caller.input[:_READ_BYTES])
                    del caller.input[:written]
                    caller.waiting += frame(0, INPUT_CREDIT, numbers(written))
            except BlockingIOError:
                pass
            except OSError:
                gone = True
            self._flush(caller)
        if gone:
            self._end_input()

    def _end_input(self) -> None:
        """The workload has closed its input."""
        if self._waits:
            self._poller.unregister(self._target)
        self._waits, self._target, self._input_gone = False, -1, True
        for caller in list(self._callers.values()):
            caller.input.clear()
            caller.waiting += frame(0, INPUT_GONE)
            self._flush(caller)

    def _flush(self, caller: Connection) -> None:
        """Send what can be sent. If the caller has gone, what it has sent before is still to be read: it may detach."""
        try:
            caller.flush()
        except OSError:
            caller.waiting.clear()

    def _leave(self, caller: Connection) -> None:
        """Forget a caller that has gone; without its owner the workload ends."""
        owner = caller.owner
        self._drop(caller)
        if owner and self._hang_up is not None:
            self._hang_up()

    def _drop(self, caller: Connection) -> None:
        if self._callers.pop(caller.fd, None) is not None:
            self._poller.unregister(caller.fd)
            os.close(caller.fd)

    def _watch_all(self) -> None:
        """Wait for what can be passed on."""
        if self.full() != self._paused:
            self._paused = not self._paused
            self._pause(paused=self._paused)
        if self._listener >= 0:
            self._poller.modify(self._listener, select.POLLIN if len(self._callers) < CALLERS else 0)
        for caller in self._callers.values():
            self._poller.modify(caller.fd, select.POLLIN | (select.POLLOUT if caller.waiting else 0))
        waits = self._target >= 0 and any(caller.input for caller in self._callers.values())
        if waits and not self._waits:
            self._poller.register(self._target, select.POLLOUT)
        elif self._waits and not waits:
            self._poller.unregister(self._target)
        self._waits = waits

    def _pause(self, *, paused: bool) -> None:
        for fd in self._outputs:
            try:
                self._poller.modify(fd, 0 if paused else select.POLLIN)
            except OSError:  # it has ended, and is not waited for any more
                pass


def listen(folder: str, name: str) -> int:
    """Return the descriptor of a new listening socket in a folder, of which only the owner reaches it. Raises OSError.

    It is made through a descriptor of the folder, because a path of a socket has at most 107 bytes (unix(7)).
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    try:
        os.unlink(os.path.join(folder, name))  # of an earlier start
    except FileNotFoundError:
        pass
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        server.bind(f"/proc/self/fd/{place}/{name}")
        server.listen(CALLERS)
        server.setblocking(False)
        return server.detach()
    except BaseException:
        server.close()
        raise
    finally:
        os.close(place)
