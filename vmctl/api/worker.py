"""The process that does one request, as a command line would: with the directory and the variables of its caller."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from vmctl import interrupts, private
from vmctl.api import verbs, wire
from vmctl.errors import VmctlError, of_system
from vmctl.light import json, signal

if TYPE_CHECKING:
    from typing import NoReturn

_BLOCK_BYTES = 1 << 16
_OURS = ("vmctl", "images", "containers", "vmm")
# the variables by which the state of vmctl is found, see paths.py
_PLACES = ("VMCTL_ROOT", "XDG_DATA_HOME", "HOME")


class Caller:
    """The other side of a request: what is reported to it, and to the server."""

    def __init__(self, connection: socket.socket, notes: socket.socket) -> None:
        self._connection, self._notes = connection, notes

    def send(self, event: str, values: object = None) -> None:
        """Send an event to the program."""
        self._connection.sendall(wire.line([event, values]))

    def owns(self, name: str, identity: str) -> None:
        """Let the server remove this instance when the program has ended."""
        variables = {key: os.environ[key] for key in _PLACES if key in os.environ}
        self._note(event="owned", name=name, id=identity, variables=variables)

    def releases(self, name: str, identity: str) -> None:
        """Undo `owns`."""
        self._note(event="released", name=name, id=identity)

    def has_imported(self, modules: list[str]) -> None:
        """Let the server import these before the next request."""
        if modules:
            self._note(event="imported", modules=modules)

    def _note(self, **values: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the server was killed
            self._notes.sendall(json.dumps(values).encode())


def main(descriptors: list[int], notes: socket.socket) -> NoReturn:
    """Do the request on the first descriptor, with the others as streams, and exit."""
    code = 1
    try:
        _tie()
        before = set(sys.modules)
        connection, *streams = descriptors
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        caller = Caller(socket.socket(fileno=connection), notes)
        with suppress(BrokenPipeError, ConnectionResetError):  # the program has ended
            caller.send(*_done(caller))
        code = 0
        caller.has_imported(_new_modules(before))
    finally:  # always: this copy of the server must not go on
        os._exit(code)


def _tie() -> None:
    """End with the server, and turn signals into exceptions."""
    from vmctl.linux import syscalls

    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    for number in interrupts.ENDING:
        signal.signal(number, interrupts.end)


def _done(caller: Caller) -> tuple[str, Any]:
    """Do the request and return the last event."""
    try:
        return wire.DONE, _act(caller)
    except VmctlError as error:
        return wire.FAILED, wire.of_error(error)
    except OSError as error:
        return wire.FAILED, wire.of_error(of_system(error))
    except (KeyboardInterrupt, SystemExit):
        return wire.FAILED, wire.of_error(wire.Interrupted("the request was interrupted"))
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (please report it)"
        return wire.FAILED, wire.of_error(wire.Internal(text, detail=traceback.format_exc()))


def _act(caller: Caller) -> Any:
    request = _read(caller._connection)
    os.environ.clear()
    os.environ.update(request["variables"])
    os.chdir(request["folder"])
    _show_pid(caller._connection)
    if traced := os.environ.get("VMCTL_TRACE"):
        from vmctl import trace

        trace.start(traced, ["(Python)", request["verb"]])
    private.close_folders()
    verb, given = verbs.VERBS[request["verb"]], request["given"]
    if before := verbs.BEFORE.get(request["verb"]):  # outside of namespaces, as in the command line
        before(given)
    if os.geteuid() != 0:
        from vmctl import holder

        holder.enter()
    return verb(given, caller)


def _read(connection: socket.socket) -> Any:
    lines = wire.Lines()
    while data := connection.recv(_BLOCK_BYTES):
        for message in lines.feed(data):
            return message
    raise wire.Interrupted("the program has ended")


def _show_pid(connection: socket.socket) -> None:
    """Send a descriptor of this process, by which the program can send signals to it, and to no other one."""
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(connection, [wire.line(["begun", None])], [pidfd])
    os.close(pidfd)


def _new_modules(before: set[str]) -> list[str]:
    """Return the modules of ours that were imported since then, so that the next request finds them."""
    return [name for name in sys.modules if name not in before and name.partition(".")[0] in _OURS]


def remove_all(owned: Mapping[tuple[str, str], Mapping[str, str]], limit: int) -> None:
    """Remove instances, each found by its variables; what cannot be removed is left for `vmctl down`."""
    from vmctl.stacks import workers

    def act(name: str, identity: str, variables: Mapping[str, str], send: object) -> None:
        _tie()
        os.environ.update(variables)
        if os.geteuid() != 0:
            from vmctl import holder

            holder.enter()
        verbs.removed(name, identity)

    jobs = [
        workers.Job(f"{name} {identity}", partial(act, name, identity, variables))
        for (name, identity), variables in owned.items()
    ]
    workers.run(jobs, lambda *_: None, limit=limit, go_on=True)
