"""A caller at the hub of an instance: its owner, which has started it, or one of those that come later."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from vmctl import ends
from vmctl.attach import session
from vmctl.attach.frames import HEADER_BYTES, moment_of
from vmctl.attach.hub import SOCKET
from vmctl.attach.session import DetachedError, GoneError, LeaveError, Session, Signals
from vmctl.backend import Attachment, Exit, Watch
from vmctl.errors import EXIT_VMCTL, StateError
from vmctl.instances.instance import Instance
from vmctl.light import signal

_LOOK_S = 0.02
END_S = 10.0  # from the end of the connection until the end of the workload is recorded


class Caller(Session):
    """A connection with a hub."""

    def _stop_output(self, stream: int) -> None:
        self._signals.send(signal.SIGHUP)  # as from a terminal that is closed


def connect(folder: str, name: str = SOCKET) -> socket.socket:
    """Return a connection with the hub at a socket in this folder. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{place}/{name}")  # see hub.listen
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(place)
    return connection


def own(watch: Watch, connection: socket.socket, attachment: Attachment, send: Callable[[int], object]) -> Exit:
    """Converse as the owner until the workload has ended, and return how; signals go to `send`.

    If the keys to detach are typed, `inst.left` is set.
    """
    inst, signals = watch.inst, Signals(send)
    caller = Caller(inst.name, connection, signals, "t", attachment.detach_keys)
    try:
        return Exit(session.converse(caller, signals, redraw=False), "signal")
    except DetachedError:
        inst.left = True
        return Exit(0, "vmctl")
    except GoneError:
        return _ended(watch) or Exit(EXIT_VMCTL, "vmctl")


def _ended(watch: Watch) -> Exit | None:
    deadline_s = time.monotonic() + END_S
    while watch.alive() and time.monotonic() < deadline_s:
        time.sleep(0.001)
    if watch.alive():
        raise StateError(
            f"the connection with {watch.inst.name} has ended, but it runs on",
            hint=f"`vmctl attach {watch.inst.name}` connects again",
        )
    watch.observe()
    return watch.result()


def attach(
    inst: Instance,
    keys: bytes,
    send: Callable[[int], object] | None,
    name: str = SOCKET,
    before: Callable[[int], object] = lambda since_ns: None,
) -> int | None:
    """Converse with a running instance; return None if the keys to detach were typed, else the time of its end.

    `before` is called with the time since which output goes to this connection: what was written before is in the log,
    as is what is written after its end. Times are in nanoseconds since 1970.
    Signals go to `send`; without it, and SIGHUP in any case, they end this command only, by LeaveError. Raises
    StateError if there is no hub.
    """
    try:
        connection = connect(inst.run_dir, name)
    except OSError as error:
        raise StateError(
            f"{inst.name} has nothing to connect to: {error.strerror}",
            hint=f"an earlier vmctl has started it, or its supervisor was killed: `vmctl restart {inst.name}`",
        ) from None
    terminal = inst.work.tty or name != SOCKET
    with connection:
        greeting = b""
        with suppress(ConnectionResetError):
            greeting = connection.recv(HEADER_BYTES + 8, socket.MSG_PEEK)  # of the hub
        if not greeting and name == SOCKET:  # this connection gets no output: all of it is in the log
            raise StateError(f"{inst.name} has ended", hint=f"`vmctl logs {inst.name}` shows its output")
        before(_began_ns(greeting))
        signals = Signals(partial(pass_on, send))
        caller = Caller(inst.name, connection, signals, "t" if terminal else "i", keys)
        try:
            raise LeaveError(session.converse(caller, signals, redraw=True))
        except DetachedError:
            return None
        except GoneError:
            return caller.closed_ns or time.time_ns()


def _began_ns(greeting: bytes) -> int:
    """Return the time in the first frame of a hub; that of an earlier vmctl has none."""
    payload = greeting[HEADER_BYTES:] if greeting[6:8] == b"\x08\0" else b""
    return moment_of(payload, time.time_ns())


def comes_again(inst: Instance) -> bool:
    """Wait until a workload whose connection has ended runs again, by its restart policy; return False if it does not.

    Raises NotFoundError if it was removed.
    """
    if inst.work.restart.policy == "no":
        return False
    deadline_s = time.monotonic() + END_S
    while True:
        inst.recall()
        found = ends.status(inst)
        if found == "restarting":  # its pause may be long
            deadline_s = time.monotonic() + END_S
        elif found == "running" and _listens(inst):
            return True
        elif (found != "running" and not ends.is_supervised(inst)) or time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_S)


def _listens(inst: Instance) -> bool:
    try:
        connect(inst.run_dir).close()
    except OSError:
        return False
    return True


def pass_on(send: Callable[[int], object] | None, number: int) -> None:
    """Pass a signal on, or raise LeaveError."""
    if send is None or number == signal.SIGHUP:
        raise LeaveError(128 + number)
    send(number)
