"""The side of a process that takes steps: it reports each one to the stage, and goes on when the stage lets it.

A step comes here through vmctl/trace.py, from any process of the start: the command, the supervisor, the first process
of a container, the process with libvirt. So nothing is imported here later; that process can import nothing any more.
"""

from __future__ import annotations

import _thread
import array
import json
import os
import socket
from contextlib import suppress

from vmctl.linux import commands

ALREADY = (array, commands)  # send_fds and trace import them when they are called

_TEXT_BYTES = 1 << 15  # of a command, which has to fit into one message


class Gate:
    """Reports steps at a connection with the stage (vmctl/stepping/stage.py)."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._inode = os.fstat(connection.fileno()).st_ino

    def __call__(self, command: str, note: str) -> None:
        """Report a step and wait until the stage lets this process go on, or has ended."""
        with suppress(OSError):  # the stage has ended, or there are no more descriptors: then nothing waits
            if os.fstat(self._connection.fileno()).st_ino != self._inode:
                return  # a forked process has closed it, and something else has its number
            ours, theirs = os.pipe()
            try:
                try:
                    self._report(command, note, theirs)
                finally:
                    os.close(theirs)
                os.read(ours, 1)
            finally:
                os.close(ours)

    def _report(self, command: str, note: str, answer: int) -> None:
        message = {"command": command[:_TEXT_BYTES], "note": note[:_TEXT_BYTES], "thread": _thread.get_native_id()}
        socket.send_fds(self._connection, [json.dumps(message).encode()], [answer])
