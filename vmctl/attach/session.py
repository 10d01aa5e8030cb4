"""The caller's side of a connection with a command: one loop between the caller's streams and frames.

The other side may be a hostile guest: what it sends is checked and bounded, and a caller who wants to leave does not
depend on it.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from vmctl.attach import frames
from vmctl.attach.frames import HEADER_BYTES, PAYLOAD_BYTES, WINDOW_BYTES, frame, numbers
from vmctl.attach.keys import WAIT_S, Keys
from vmctl.attach.modes import Modes
from vmctl.errors import VmctlError
from vmctl.light import signal
from vmctl.linux import relay, terminal
from vmctl.linux.stdio import NO_READER, drain, signals_to, woken

_PING_S, _PINGS = 10.0, 6  # so many in a row without an answer: the other side hangs
_KILL_S = 2.0  # for the end to be reported after SIGKILL
_READ_BYTES = 1 << 16
_PIPE_BYTES = 4096  # a pipe that poll(2) reports as writable takes so many without blocking: PIPE_BUF (pipe(7))
_BACKGROUND_MS = 250  # between two looks whether this process may read from the terminal


class GoneError(VmctlError):
    """The connection has ended before the command's end was reported."""


class LeaveError(Exception):
    """The caller does not wait any longer."""

    def __init__(self, code: int) -> None:
        self.code = code


class DetachedError(Exception):
    """The caller has typed the keys to detach: what it was connected with runs on."""


class Signals:
    """Signals of the caller for the command; each signal wakes the loop through a pipe, see `stdio.woken`."""

    fd: int  # its end for reading, while `converse` runs

    def __init__(self, deliver: Callable[[int], object] | None = None) -> None:
        """Each signal is passed to `deliver`, which may raise LeaveError; without, it waits to be sent as a frame."""
        self.started = False  # before that there is no command to pass a signal on to
        self.waiting: list[int] = []
        self._deliver = deliver or self.waiting.append
        self._killed = False

    def send(self, number: int) -> None:
        """Note a signal, see `signals_to`. After SIGKILL the end has a moment; then SIGALRM brings another one."""
        if not self.started or (self._killed and number == signal.SIGKILL):
            raise LeaveError(128 + number)  # also out of a write to a terminal that is stopped
        self._deliver(number)
        if number == signal.SIGKILL:
            self._killed = True
            signal.setitimer(signal.ITIMER_REAL, _KILL_S)


class Output:
    """Output on its way to a descriptor of the caller."""

    def __init__(self, fd: int) -> None:
        self.fd, self.waiting, self.open = fd, bytearray(), True
        self._most = _READ_BYTES if stat.S_ISREG(os.fstat(fd).st_mode) else _PIPE_BYTES

    def write(self) -> None:
        """Write what can be written without blocking. Raises OSError."""
        ready = select.poll()
        ready.register(self.fd, select.POLLOUT)
        while self.waiting and ready.poll(0):
            try:
                part = os.write(self.fd, self.waiting[: self._most])
            except BlockingIOError:
                break
            del self.waiting[:part]


def converse(session: Session, signals: Signals, command: bytes = b"", *, redraw: bool | None = None) -> int:
    """Run a session to its end on this process's streams, and return the exit code; see `Session.run`.

    With a terminal, ours is in raw mode meanwhile; afterwards it is as it was before.
    """
    with ExitStack() as stack:
        signals.fd = stack.enter_context(woken())
        stack.enter_context(signals_to(signals.send))
        if session.tty:
            stack.enter_context(terminal.raw(0))
            stack.enter_context(terminal.resized(lambda: None))  # it wakes the loop
            stack.callback(session.leave_terminal)
        stack.enter_context(relay.reading_in_background_fails())
        try:
            return session.run(command, redraw=redraw)
        except LeaveError as left:
            return left.code


class Session:
    """A connection with a command, and the loop that copies its streams."""

    def __init__(self, who: str, connection: socket.socket, signals: Signals, streams: str, keys: bytes = b"") -> None:
        """`who` is the other side, for errors; `streams`: t: a terminal, i: an input, f: which is a file."""
        self._who, self._connection, self._signals = who, connection, signals
        connection.setblocking(False)
        self._outgoing, self._arrived = bytearray(), bytearray()
        self._outputs = {frames.OUTPUT: Output(1), frames.ERROR_OUTPUT: Output(2)}
        self._credited = {frames.OUTPUT: 0, frames.ERROR_OUTPUT: 0}  # frames that were received, for the window
        self.tty, self._file = "t" in streams, "f" in streams
        self._reads = "i" in streams or "t" in streams
        self._keys, self._modes = Keys(keys), Modes()
        self._leaves = False  # the caller goes as soon as what is waiting is sent
        self._size = terminal.size(0)
        self._sent = self._passed_on = 0  # bytes of the input: read by us, and written to the command's pipe
        self._code: int | None = None
        self._gone = False
        self.closed_ns = 0  # until when output came, by the clock of the other side; 0: it did not report it
        self._unread = 0
        self._error: OSError | None = None
        self._pings, self._next_ping = 0, time.monotonic() + _PING_S

    def run(self, command: bytes = b"", *, redraw: bool | None = None) -> int:
        """Run the command, if there is one to run, and return the exit code.

        With `redraw`, True or False, the size of our terminal is reported first: whether to draw the screen anew.

        Raises GoneError, DetachedError, LeaveError, VmctlError if it was not started, and OSError if output could not
        be written.
        """
        for start in range(0, len(command), PAYLOAD_BYTES):
            self._send(frames.REQUEST, command[start : start + PAYLOAD_BYTES])
        if command:
            self._send(frames.START)
        if redraw is not None:
            self._send(frames.RESIZE, numbers(*self._size, redraw))
        while not self._over() or any(output.waiting for output in self._outputs.values()):
            self._round()
        if self._file:  # the next program continues with the first byte that the command has not read
            os.lseek(0, self._passed_on - self._unread - self._sent, os.SEEK_CUR)
        if self._error is not None:
            raise self._error
        if self._code is None:
            raise GoneError(f"{self._who} has ended, and the command with it")
        return self._code

    def leave_terminal(self) -> None:
        """Switch off what the command has left switched on in our terminal."""
        left = self._modes.undo()
        if left and os.isatty(1):
            with suppress(OSError):
                os.write(1, left)

    def _over(self) -> bool:
        return self._code is not None or self._gone

    def _round(self) -> None:
        poller = select.poll()
        poller.register(self._signals.fd, select.POLLIN)
        if not self._over():
            poller.register(self._connection, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        background = self.tty and relay.in_background(0)
        if self._wants_input() and not background:
            poller.register(0, select.POLLIN)
        for output in self._outputs.values():
            if output.waiting:
                poller.register(output.fd, select.POLLOUT)
        wait_s = WAIT_S if self._keys.held else _PING_S
        events = dict(poller.poll(_BACKGROUND_MS if background else 1000 * wait_s))
        if not events and self._keys.held:
            self._send_input(self._keys.release())
        self._handle(events)
        self._check_silence()

    def _handle(self, events: dict[int, int]) -> None:
        if self._signals.fd in events:
            self._pass_on()
        if self._connection.fileno() in events:
            self._receive()
        if 0 in events and self._reads:
            self._read_input()
        for kind, output in self._outputs.items():
            if output.waiting and output.fd in events:
                self._write(kind, output)
        self._flush()
        if self._leaves and not self._outgoing:
            raise DetachedError

    def _wants_input(self) -> bool:
        started = self._signals.started and not self._over() and not self._leaves
        room = self._sent - self._passed_on < WINDOW_BYTES and len(self._outgoing) < _READ_BYTES
        return self._reads and started and room

    def _read_input(self) -> None:
        room = WINDOW_BYTES - (self._sent - self._passed_on)
        try:
            data = os.read(0, max(1, min(PAYLOAD_BYTES, room) - len(self._keys.held)))
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal was closed, or this process is in the background since the look before
            if self.tty and relay.in_background(0):
                return
            data = b""
        self._reads = bool(data)
        self._send_input(self._keys.feed(data) if data else self._keys.release())
        if self._keys.complete:
            self._detach()
        elif not data:
            self._send(frames.INPUT_END)

    def _detach(self) -> None:
        """Leave, and let what this session is connected with run on."""
        self._leaves = True
        self._send(frames.DETACH)

    def _send_input(self, data: bytes) -> None:
        self._sent += len(data)
        if data:
            self._send(frames.INPUT, data)

    def _write(self, kind: int, output: Output) -> None:
        try:
            output.write()
        except OSError as error:
            if error.errno not in NO_READER and self._error is None:
                self._error = OSError(error.errno, f"the output could not be written: {error.strerror}")
            output.waiting.clear()
            output.open = False
            self._stop_output(kind - frames.OUTPUT)
        if not output.waiting and self._credited[kind] > WINDOW_BYTES // 4:
            self._send(frames.CREDIT, numbers(kind - frames.OUTPUT, self._credited[kind]))
            self._credited[kind] = 0

    def _stop_output(self, stream: int) -> None:
        """Say that nobody reads this output any more: the command gets SIGPIPE, or SIGHUP from its terminal."""
        self._send(frames.STOP_OUTPUT, numbers(stream))

    def _pass_on(self) -> None:
        drain(self._signals.fd)
        if self.tty and (size := terminal.size(0)) != self._size:
            self._size = size
            self._send(frames.RESIZE, numbers(*size))
        while self._signals.waiting:
            self._send(frames.SIGNAL, numbers(self._signals.waiting.pop(0)))

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone = True
        self._pings, self._next_ping = 0, time.monotonic() + _PING_S
        self._arrived += data
        try:
            for _, kind, payload in frames.take(self._arrived):
                self._take(kind, payload)
        except ValueError:
            raise GoneError(f"{self._who} does not follow the protocol") from None

    def _take(self, kind: int, payload: bytes) -> None:
        if kind in self._outputs:
            self._take_output(kind, payload)
        elif kind == frames.STARTED:
            self._started(payload)
            self._signals.started = True
        elif kind == frames.INPUT_CREDIT:
            self._passed_on = min(self._sent, self._passed_on + frames.number(payload))
        elif kind == frames.INPUT_GONE:
            self._reads = False
        elif kind == frames.CLOSING:
            self.closed_ns = frames.moment_of(payload, 0)
        elif kind == frames.EXIT:
            self._code = min(frames.number(payload), 255)
            self._unread = min(frames.number(payload, 1), self._passed_on)
        elif kind == frames.FAILURE:
            raise self._failure(payload)

    def _started(self, payload: bytes) -> None:
        """Check what the other side reports about the place of the command. Raises VmctlError."""

    def _take_output(self, kind: int, payload: bytes) -> None:
        output = self._outputs[kind]
        self._credited[kind] += HEADER_BYTES + len(payload)
        if self._credited[kind] > WINDOW_BYTES:
            raise ValueError("more output than the window allows")
        if output.open:
            if self.tty:
                self._modes.see(payload)
            output.waiting += payload
        self._write(kind, output)

    def _check_silence(self) -> None:
        now = time.monotonic()
        if now < self._next_ping or self._over() or not self._signals.started:
            return
        if self._pings == _PINGS:
            raise GoneError(f"{self._who} has stopped answering")
        self._pings, self._next_ping = self._pings + 1, now + _PING_S
        self._send(frames.PING)

    def _failure(self, payload: bytes) -> VmctlError:
        """Return the error of a command that was not started."""
        return VmctlError(payload.decode(errors="replace"))

    def _send(self, kind: int, payload: bytes = b"") -> None:
        self._outgoing += frame(0, kind, payload)

    def _flush(self) -> None:
        try:
            while self._outgoing and not self._over():
                del self._outgoing[: self._connection.send(self._outgoing)]
        except BlockingIOError:
            pass
        except OSError:  # what it has sent before is still to be read, and then its end
            self._outgoing.clear()
