"""Run a command in a guest through its agent: the caller's side of the frames of vmm/frames.py.

One loop copies between the caller's streams and the agent. The guest is hostile: what it sends is checked and bounded,
and a caller who wants to leave does not depend on it.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

from vmctl.errors import CommandNotExecutableError, CommandNotFoundError, DeadlineError, StateError, VmctlError
from vmctl.light import signal
from vmctl.linux import relay, terminal
from vmctl.linux.stdio import NO_READER, is_null, signals_to
from vmm import frames
from vmm.frames import HEADER_BYTES, PAYLOAD_BYTES, WINDOW_BYTES, frame, numbers

ANSWER_S = 60.0  # for the first answer of a guest that has booted
BOOT_S = 600.0  # 4 s in an emulated guest, many times that if others boot too
_PING_S, _PINGS = 10.0, 6  # so many in a row without an answer: the guest hangs
_KILL_S = 2.0  # for the guest to report the end after SIGKILL
_READ_BYTES = 1 << 16
_PIPE_BYTES = 4096  # a pipe that poll(2) reports as writable takes so many without blocking: PIPE_BUF (pipe(7))
_BACKGROUND_MS = 250  # between two looks whether this process may read from the terminal


class GoneError(VmctlError):
    """The connection has ended before the command has."""


class _LeaveError(Exception):
    """The caller does not wait for the guest any longer."""

    def __init__(self, code: int) -> None:
        self.code = code


TOOL = "b"  # a flag of `request`


def request(
    argv: Sequence[str], env: Mapping[str, str], workdir: str, user: str, flags: str, size: tuple[int, int]
) -> bytes:
    """Return a command as texts that end with a zero byte, see `parse` in vmm/guest/program/begin.c.

    The limits are those of this process: a command in a container inherits them too.
    """
    limits = ",".join(f"{soft}:{hard}" for soft, hard in map(resource.getrlimit, range(16)))
    words = ["exec", user, workdir, flags, *map(str, size), limits, str(len(argv)), *argv]
    words += [f"{name}={value}" for name, value in env.items()]
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def flags(*, tty: bool, stdin: bool) -> str:
    """Return the streams that a command needs for the caller's ones, for `request`; TOOL can be added.

    t: a terminal; i: an input; f: which is a file, so the unread rest is reported; m: one pipe for both outputs.
    """
    if tty:
        return "t"
    wanted = ""
    if stdin and not is_null(0):
        wanted = "if" if stat.S_ISREG(os.fstat(0).st_mode) else "i"
    return wanted + ("m" if os.path.sameopenfile(1, 2) else "")


def execute(name: str, path: str, command: bytes, streams: str, boots: Callable[[], bool]) -> int:
    """Run a command (see `request`) with these `flags` on this process's streams; return its exit code.

    `path` is the socket of the guest's recorder; `boots` returns whether the guest still boots. Raises VmctlError for a
    command that was not started, GoneError, and OSError if output could not be written.
    """
    with ExitStack() as stack:
        connection = stack.enter_context(_connect(name, path))
        signals = stack.enter_context(_Signals())
        stack.enter_context(signals_to(signals.send))
        if "t" in streams:
            stack.enter_context(terminal.raw(0))
            stack.enter_context(terminal.resized(lambda: None))  # it wakes the loop
        stack.enter_context(relay.reading_in_background_fails())
        session = _Session(name, connection, signals, streams, boots)
        try:
            return session.run(command)
        except _LeaveError as left:
            return left.code


def _connect(name: str, path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise StateError(
            f"the guest {name} has no agent to run commands: {error.strerror}",
            hint=f"an earlier vmctl has started it, or its recorder was killed: `vmctl restart {name}`",
        ) from None
    connection.setblocking(False)
    return connection


class _Signals:
    """Signals of the caller for the command; each signal wakes the loop through a pipe."""

    def __init__(self) -> None:
        self.started = False  # before that there is no command to pass a signal on to
        self.waiting: list[int] = []
        self._killed = False

    def __enter__(self) -> _Signals:
        self.fd, self._write = os.pipe()
        for fd in (self.fd, self._write):
            os.set_blocking(fd, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self.fd)
        os.close(self._write)

    def send(self, number: int) -> None:
        """Note a signal, see `signals_to`. After SIGKILL the guest has a moment; then SIGALRM brings another one."""
        if not self.started or (self._killed and number == signal.SIGKILL):
            raise _LeaveError(128 + number)  # also out of a write to a terminal that is stopped
        self.waiting.append(number)
        if number == signal.SIGKILL:
            self._killed = True
            signal.setitimer(signal.ITIMER_REAL, _KILL_S)


class _Output:
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


class _Session:
    """A command in the guest, and the loop that copies its streams."""

    def __init__(
        self, name: str, connection: socket.socket, signals: _Signals, streams: str, boots: Callable[[], bool]
    ) -> None:
        self._boots = boots
        self._name, self._connection, self._signals = name, connection, signals
        self._outgoing, self._arrived = bytearray(), bytearray()
        self._outputs = {frames.OUTPUT: _Output(1), frames.ERROR_OUTPUT: _Output(2)}
        self._credited = {frames.OUTPUT: 0, frames.ERROR_OUTPUT: 0}  # frames that were received, for the window
        self._tty, self._file = "t" in streams, "f" in streams
        self._reads = self._tty or "i" in streams
        self._size = terminal.size(0)
        self._sent = self._passed_on = 0  # bytes of the input: read by us, and written to the command's pipe
        self._code: int | None = None
        self._unread = 0
        self._error: OSError | None = None
        self._pings, self._next_ping = 0, time.monotonic() + _PING_S
        now = time.monotonic()
        self._answer_by, self._booted_by = now + ANSWER_S, now + BOOT_S

    def run(self, command: bytes) -> int:
        """Run the command and return its exit code."""
        for start in range(0, len(command), PAYLOAD_BYTES):
            self._send(frames.REQUEST, command[start : start + PAYLOAD_BYTES])
        self._send(frames.START)
        while self._code is None or any(output.waiting for output in self._outputs.values()):
            self._round()
        if self._file:  # the next program continues with the first byte that the command has not read
            os.lseek(0, self._passed_on - self._unread - self._sent, os.SEEK_CUR)
        if self._error is not None:
            raise self._error
        return self._code

    def _round(self) -> None:
        poller = select.poll()
        poller.register(self._signals.fd, select.POLLIN)
        if self._code is None:
            poller.register(self._connection, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        background = self._tty and relay.in_background(0)
        if self._wants_input() and not background:
            poller.register(0, select.POLLIN)
        for output in self._outputs.values():
            if output.waiting:
                poller.register(output.fd, select.POLLOUT)
        events = dict(poller.poll(_BACKGROUND_MS if background else 1000 * _PING_S))
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

    def _wants_input(self) -> bool:
        started = self._signals.started and self._code is None
        room = self._sent - self._passed_on < WINDOW_BYTES and len(self._outgoing) < _READ_BYTES
        return self._reads and started and room

    def _read_input(self) -> None:
        room = WINDOW_BYTES - (self._sent - self._passed_on)
        try:
            data = os.read(0, min(PAYLOAD_BYTES, room))
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal was closed, or this process is in the background since the look before
            if self._tty and relay.in_background(0):
                return
            data = b""
        self._sent += len(data)
        self._reads = bool(data)
        self._send(frames.INPUT if data else frames.INPUT_END, data)

    def _write(self, kind: int, output: _Output) -> None:
        try:
            output.write()
        except OSError as error:
            if error.errno not in NO_READER and self._error is None:
                self._error = OSError(error.errno, f"the output could not be written: {error.strerror}")
            output.waiting.clear()
            output.open = False
            self._send(frames.STOP_OUTPUT, numbers(kind - frames.OUTPUT))  # the command gets SIGPIPE, or SIGHUP
        if not output.waiting and output.open and self._credited[kind] > WINDOW_BYTES // 4:
            self._send(frames.CREDIT, numbers(kind - frames.OUTPUT, self._credited[kind]))
            self._credited[kind] = 0

    def _pass_on(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._signals.fd, 64)
        if self._tty and (size := terminal.size(0)) != self._size:
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
            raise GoneError(f"the agent of the guest {self._name} has ended, and the command with it")
        self._pings, self._next_ping = 0, time.monotonic() + _PING_S
        self._arrived += data
        try:
            for _, kind, payload in frames.take(self._arrived):
                self._take(kind, payload)
        except ValueError:
            raise GoneError(f"the agent of the guest {self._name} does not follow the protocol") from None

    def _take(self, kind: int, payload: bytes) -> None:
        if kind in self._outputs:
            self._take_output(kind, payload)
        elif kind == frames.STARTED:
            self._signals.started = True
        elif kind == frames.INPUT_CREDIT:
            self._passed_on = min(self._sent, self._passed_on + frames.number(payload))
        elif kind == frames.INPUT_GONE:
            self._reads = False
        elif kind == frames.EXIT:
            self._code = min(frames.number(payload), 255)
            self._unread = min(frames.number(payload, 1), self._passed_on)
        elif kind == frames.FAILURE:
            raise _failure(self._name, payload)

    def _take_output(self, kind: int, payload: bytes) -> None:
        output = self._outputs[kind]
        self._credited[kind] += HEADER_BYTES + len(payload)
        if self._credited[kind] > WINDOW_BYTES:
            raise ValueError("more output than the window allows")
        if output.open:
            output.waiting += payload
            self._write(kind, output)

    def _check_silence(self) -> None:
        now = time.monotonic()
        if not self._signals.started and self._code is None and now > self._answer_by:
            if now < self._booted_by and self._boots():
                self._answer_by = now + ANSWER_S
                return
            raise DeadlineError(
                f"the agent of the guest {self._name} does not answer",
                hint=f"`vmctl logs --boot {self._name}` shows whether the guest still boots",
            )
        if now < self._next_ping or self._code is not None or not self._signals.started:
            return
        if self._pings == _PINGS:
            raise GoneError(f"the guest {self._name} has stopped answering")
        self._pings, self._next_ping = self._pings + 1, now + _PING_S
        self._send(frames.PING)

    def _send(self, kind: int, payload: bytes = b"") -> None:
        self._outgoing += frame(0, kind, payload)

    def _flush(self) -> None:
        try:
            while self._outgoing and self._code is None:
                del self._outgoing[: self._connection.send(self._outgoing)]
        except BlockingIOError:
            pass
        except OSError:  # what it has sent before is still to be read, and then its end
            self._outgoing.clear()


def _failure(name: str, payload: bytes) -> VmctlError:
    """Return the error of a command that was not started; the words are those of mode `container`."""
    kind, (text, _, hint) = payload[:1], payload[1:].decode(errors="replace").partition("\n")
    if kind == b"n":
        return CommandNotFoundError(text)
    if kind == b"x":
        return CommandNotExecutableError(text)
    return VmctlError(f"{name} could not run the command: {text}", hint=hint)
