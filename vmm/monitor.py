"""Requests to the QEMU of a running guest through its monitor: to stop and to go on, and the size of its balloon.

libvirt makes the socket, and is gone once QEMU runs; QEMU then takes the next connection (docs/interop/qmp-spec of
QEMU). A guest may have taken over its QEMU, so what it answers is bounded in size and time.
"""

from __future__ import annotations

import json
import os
import socket
import time
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
    _refuse_daemon(inst)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _connect(connection, files.monitor(inst))
            conversation = _Conversation(connection)
            conversation.line()  # the greeting
            conversation.answer({"execute": "qmp_capabilities"})
            return conversation.answer({"execute": command, "arguments": arguments})
        except TimeoutError:
            raise DeadlineError(f"QEMU of {inst.name} does not answer within {TIMEOUT_S:g} s") from None
        except (OSError, ValueError) as error:
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


class _Conversation:
    """The lines of one connection; each is a JSON object."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._arrived = connection, bytearray()
        self._end_s = time.monotonic() + TIMEOUT_S

    def answer(self, request: dict[str, Any]) -> Any:
        """Send a request and return its answer; events in between are skipped. Raises ValueError for an error."""
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self.line()
            if "return" in line:
                return line["return"]
            if "error" in line:
                raise ValueError(str(line["error"])[:200])

    def line(self) -> dict[str, Any]:
        """Return the next object. Raises OSError, ValueError."""
        while b"\n" not in self._arrived:
            self._connection.settimeout(max(0.001, self._end_s - time.monotonic()))
            if not (data := self._connection.recv(65536)):
                raise ValueError("the connection was closed")
            self._arrived += data
            if len(self._arrived) > _LINE_BYTES:
                raise ValueError("its answer is too long")
        text, _, rest = self._arrived.partition(b"\n")
        self._arrived = bytearray(rest)
        found = json.loads(text.decode(errors="replace"))
        if not isinstance(found, dict):
            raise ValueError("its answer is not an object")
        return found
