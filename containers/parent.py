"""The parent of a command that the caller can leave: one with a terminal, or one in the background.

The kernel kills the command when its parent ends, so a process between the two stays.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from functools import partial

from containers.attend import pass_on
from containers.enter import spawn
from containers.launch import Launch, Streams
from containers.reports import describe, revive
from containers.terminals import Channel
from vmctl.attach import frames, session, size
from vmctl.attach.front import Caller
from vmctl.attach.hub import Hub
from vmctl.attach.session import DetachedError, Signals
from vmctl.backend import Command
from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import processes
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

_LAST_READS = 64
_DESCRIPTORS = 1 << 20


class _Command(Caller):
    """A connection with the parent of a command."""

    def _failure(self, payload: bytes) -> VmctlError:
        return revive(payload, self._who, "could not run the command")


def run(inst: Instance, launch: Launch, command: Command) -> int:
    """Run a command on a terminal of the container, and return its exit code.

    Raises the error that prevented its start, DetachedError, GoneError.
    """
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        _be_parent(inst, launch, command, there)
    there.close()
    try:
        with here:
            signals = Signals()
            code = session.converse(_Command(inst.name, here, signals, "t", command.detach_keys), signals)
    except DetachedError:
        raise
    except BaseException:
        os.waitpid(pid, 0)
        raise
    os.waitpid(pid, 0)
    return code


def leave(inst: Instance, launch: Launch, command: Command) -> int:
    """Start a command without streams that runs on, and return 0. Raises the error that prevented its start."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _stay(inst, launch, command, write)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        error = file.read()
    if error:
        os.waitpid(pid, 0)
        raise revive(error, inst.name, "could not run the command")
    return 0


def _stay(inst: Instance, launch: Launch, command: Command, report: int) -> NoReturn:
    """Start the command, close `report`, to which an error is written, and wait for the command's end."""
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        pid, _ = spawn(inst, launch, command, Streams(null, null, null))
        _let_go()
        os.closerange(3, _DESCRIPTORS)
        os.waitpid(pid, 0)
    except BaseException as error:
        with suppress(OSError):
            os.write(report, describe(error))
    finally:
        os._exit(0)


def _be_parent(inst: Instance, launch: Launch, command: Command, connection: socket.socket) -> NoReturn:
    """Start the command, and pass its streams on until it has ended."""
    try:
        os.setsid()
        with Channel() as channel:
            pid, master = spawn(inst, launch, command, Streams(0, 1, 2), channel)
        assert master is not None
        _let_go()
        _serve(pid, master, connection)
    except BaseException as error:
        with suppress(OSError):
            connection.setblocking(True)
            connection.sendall(frames.frame(0, frames.FAILURE, describe(error)[: frames.PAYLOAD_BYTES]))
    finally:
        os._exit(0)


def _let_go() -> None:
    """Keep nothing of the caller: neither its streams nor its folder."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.chdir("/")


def _serve(pid: int, master: int, connection: socket.socket) -> None:
    poller, ended = select.poll(), os.pidfd_open(pid)
    poller.register(ended, select.POLLIN)
    poller.register(master, select.POLLIN)
    hub = Hub(
        poller,
        -1,
        os.dup(master),
        (master,),
        resize=partial(size.set_size, master),
        send=partial(pass_on, pid, partial(os.kill, pid)),
        hang_up=lambda: os._exit(0),  # the kernel kills the command
        owned=True,
    )
    hub.adopt(connection.detach())
    while ended not in (events := dict(poller.poll(hub.wait_ms()))):
        if master in events and not _show(master, hub):
            poller.unregister(master)  # no process has it open any more
        hub.handle(events)
    for _ in range(_LAST_READS):  # other processes may keep the terminal open, and write to it without end
        if not hub.room() or not _show(master, hub):
            break
    hub.finish(processes.exit_code(os.waitpid(pid, 0)[1]))


def _show(master: int, hub: Hub) -> bool:
    """Pass the available output on; return False if no output is there."""
    try:
        data = os.read(master, 65536)
    except OSError:  # EAGAIN; EIO: no process has it open any more
        return False
    hub.show(master, data)
    return bool(data)
