"""Requests to the QEMU of a running guest through its monitor: to stop and to go on, and the size of its balloon.

libvirt makes the socket, and is gone once QEMU runs; QEMU then takes the next connection (docs/interop/qmp-spec of
QEMU). A guest may have taken over its QEMU, so what it answers is bounded in size and time.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vmctl.errors import DeadlineError, UnavailableError, VmctlError
from vmctl.instances.instance import Instance
from vmm import files

TIMEOUT_S = 30.0  # an emulated guest on a busy host
_LINE_BYTES = 1 << 20


def ask(inst: Instance, command: str, **arguments: Any) -> Any:
    """Return what QEMU answers to a command of its monitor.

    Raises UnavailableError if the monitor belongs to a libvirt daemon, DeadlineError, VmctlError.
    """
    with conversation(inst) as qemu:
        return qemu.ask(command, **arguments)


@contextmanager
def conversation(inst: Instance, timeout_s: float = TIMEOUT_S) -> Iterator[Conversation]:
    """Yield a connection with the monitor, for several commands within this time; nobody else has one meanwhile.

    Raises as `ask` does, also for what goes wrong in the block.
    """
    _refuse_daemon(inst)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            try:
                _connect(connection, files.monitor(inst))
            except TimeoutError:
                raise
            except OSError as error:
                raise RefusedError(str(error)) from None
            qemu = Conversation(connection, timeout_s)
            qemu.line()  # the greeting
            qemu.ask("qmp_capabilities")
            yield qemu
        except TimeoutError:
            raise DeadlineError(f"QEMU of {inst.name} does not answer within {timeout_s:g} s") from None
        except (RefusedError, ConnectionError) as error:
            raise VmctlError(f"QEMU of {inst.name} does not take requests: {error}") from None


def _refuse_daemon(inst: Instance) -> None:
    if uri := inst.state.options.get("connect"):
        raise UnavailableError(
            f"the libvirt daemon {uri} has the monitor of {inst.name}",
            hint=f"virsh --connect {uri} suspend {inst.name}, resume, or setmem",
        )


def _connect(connection: socket.socket, path: str) -> None:
    """Connect to a socket whose path may be longer than the 107 bytes of unix(7)."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


class RefusedError(Exception):
    """QEMU has refused a command, or has not answered."""


class Conversation:
    """The lines of one connection; each is a JSON object."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection, self._arrived = connection, bytearray()
        self._end_s = time.monotonic() + timeout_s

    def ask(self, command: str, *, fd: int | None = None, **arguments: Any) -> Any:
        """Return the answer to a command, with which QEMU gets `fd`; events in between are skipped.

        Raises RefusedError, OSError.
        """
        names = {name.replace("_", "-"): value for name, value in arguments.items()}
        request = json.dumps({"execute": command, "arguments": names}).encode() + b"\n"
        if fd is None:
            self._connection.sendall(request)
        else:
            socket.send_fds(self._connection, [request], [fd])
        while True:
            line = self.line()
            if "return" in line:
                return line["return"]
            if "error" in line:
                error = line["error"]
                raise RefusedError(str(error.get("desc", error) if isinstance(error, dict) else error)[:200])

    def line(self) -> dict[str, Any]:
        """Return the next object. Raises OSError, RefusedError."""
        while b"\n" not in self._arrived:
            self._connection.settimeout(max(0.001, self._end_s - time.monotonic()))
            if not (data := self._connection.recv(65536)):
                raise RefusedError("the connection was closed")
            self._arrived += data
            if len(self._arrived) > _LINE_BYTES:
                raise RefusedError("its answer is too long")
        text, _, rest = self._arrived.partition(b"\n")
        self._arrived = bytearray(rest)
        try:
            found = json.loads(text.decode(errors="replace"))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise RefusedError("its answer is not an object")
        return found
