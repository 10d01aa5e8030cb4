"""Run a command in a guest through its agent: what is asked of the agent, by the frames of vmctl/attach/frames.py."""

from __future__ import annotations

import os
import resource
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from vmctl.attach import frames, session
from vmctl.attach.session import DetachedError, Signals
from vmctl.errors import CommandNotExecutableError, CommandNotFoundError, DeadlineError, StateError, VmctlError
from vmctl.linux.stdio import is_null
from vmctl.named import NamedTuple

ANSWER_S = 60.0  # for the first answer of a guest that has booted
BOOT_S = 600.0  # 4 s in an emulated guest, many times that if others boot too

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


class Guest(NamedTuple):
    """The guest of a command: its name, the socket of its recorder, and what is asked about it."""

    name: str
    path: str
    boots: Callable[[], bool]  # whether it still boots
    place: Callable[[bytes], None]  # gets the boot id that the agent reports; raises VmctlError if that is wrong


def execute(guest: Guest, command: bytes, streams: str, keys: bytes = b"") -> int:
    """Run a command (see `request`) with these `flags` on this process's streams; return its exit code.

    `keys` are those to detach. Raises VmctlError for a command that was not started or is in another place, GoneError,
    DetachedError, and OSError if output could not be written.
    """
    with _connect(guest.name, guest.path) as connection:
        signals = Signals()
        return session.converse(Session(guest, connection, signals, streams, keys), signals, command)


def begin(guest: Guest, command: bytes) -> int:
    """Begin a command that runs on without streams, and return 0; see `execute`."""
    with _connect(guest.name, guest.path) as connection:
        signals = Signals()
        with suppress(DetachedError):
            session.converse(_Background(guest, connection, signals, ""), signals, command)
    return 0


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
    return connection


class Session(session.Session):
    """A command in the guest."""

    def __init__(
        self, guest: Guest, connection: socket.socket, signals: Signals, streams: str, keys: bytes = b""
    ) -> None:
        super().__init__(f"the agent of the guest {guest.name}", connection, signals, streams, keys)
        self._name, self._boots, self._place = guest.name, guest.boots, guest.place
        now = time.monotonic()
        self._answer_by, self._booted_by = now + ANSWER_S, now + BOOT_S

    def _check_silence(self) -> None:
        now = time.monotonic()
        if not self._signals.started and not self._over() and now > self._answer_by:
            if now < self._booted_by and self._boots():
                self._answer_by = now + ANSWER_S
                return
            raise DeadlineError(
                f"the agent of the guest {self._name} does not answer",
                hint=f"`vmctl logs --boot {self._name}` shows whether the guest still boots",
            )
        super()._check_silence()

    def _started(self, payload: bytes) -> None:
        self._place(payload)

    def _failure(self, payload: bytes) -> VmctlError:
        """Return the error of a command that was not started; the words are those of mode `container`."""
        kind, (text, _, hint) = payload[:1], payload[1:].decode(errors="replace").partition("\n")
        if kind == b"n":
            return CommandNotFoundError(text)
        if kind == b"x":
            return CommandNotExecutableError(text)
        return VmctlError(f"{self._name} could not run the command: {text}", hint=hint)


class _Background(Session):
    """A command that this process leaves as soon as it runs; what it has written by then is dropped."""

    def _take(self, kind: int, payload: bytes) -> None:
        super()._take(kind, payload)
        if kind == frames.STARTED:
            self._detach()

    def _take_output(self, kind: int, payload: bytes) -> None:
        """Drop it."""
