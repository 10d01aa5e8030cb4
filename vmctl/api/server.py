"""The process that forks a process per request of a program: it has no threads, and has imported what starts need.

Its standard input is a socket (unix(7), SOCK_SEQPACKET) on which each message carries descriptors: the socket of a
request, and its streams. When the program has ended or has closed it, the requests at work are asked to end, and the
instances that the program has not kept are removed.
"""

from __future__ import annotations

import array
import gc
import os
import socket
from contextlib import suppress
from typing import Any

from vmctl import private
from vmctl.api import wire
from vmctl.light import import_module, json, signal

MOST_DESCRIPTORS = 4  # the socket of a request and three streams
_NOTE_BYTES = 1 << 18
_END_S = 90.0  # for requests that are asked to end
_REMOVALS = 4  # at a time


def main() -> None:
    """Serve until the other side is closed."""
    _leave_the_program()
    private.set_umask()
    server = Server(socket.socket(fileno=os.dup(0)))
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)
    import_module("vmctl.api.worker")
    gc.collect()
    gc.freeze()  # what is there now is not copied by the collections of each process
    server.serve()


def _leave_the_program() -> None:
    """Become nobody's child: the program would find us in wait(2). And leave its terminal, which sends signals."""
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class Server:
    """The requests at work, and the instances to be removed at the end."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.workers: dict[int, int] = {}  # pidfd -> pid
        # (name, id) -> the variables by which it is found
        self.owned: dict[tuple[str, str], dict[str, str]] = {}
        self.notes, self.of_workers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve(self) -> None:
        """Take requests until the other side is closed, then clean up."""
        while self._wait(None):
            descriptors = self._request()
            if descriptors is None:
                break
            if descriptors:
                self._begin(descriptors)
        self._end()

    def _wait(self, timeout_s: float | None) -> bool:
        """Return True if the program has sent something; before that, see to the processes that have ended."""
        while True:
            waiting: list[socket.socket | int] = [self.control, self.notes, *self.workers]
            ready = wire.readable(waiting, timeout_s)
            for one in ready:
                if one is self.notes:
                    self._note(json.loads(self.notes.recv(_NOTE_BYTES)))
                elif isinstance(one, int):
                    os.waitpid(self.workers.pop(one), 0)
                    os.close(one)
            if self.control in ready:
                return True
            if not ready:
                return False

    def _request(self) -> list[int] | None:
        """Return the descriptors of a request, None if the other side is closed."""
        found = array.array("i")
        size = MOST_DESCRIPTORS * found.itemsize
        data, ancillary, _, _ = self.control.recvmsg(16, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
        return found.tolist() if data else None

    def _begin(self, descriptors: list[int]) -> None:
        """Fork the process of a request."""
        pid = os.fork()
        if pid == 0:
            self.control.close()
            self.notes.close()
            import_module("vmctl.api.worker").main(descriptors, self.of_workers)  # does not return
        self.workers[os.pidfd_open(pid)] = pid
        for fd in descriptors:
            os.close(fd)

    def _note(self, note: dict[str, Any]) -> None:
        """Take what a request has reported: a new instance, one that is not to be removed, or what it has imported."""
        key = (note.get("name", ""), note.get("id", ""))
        if note["event"] == "owned":
            self.owned[key] = note["variables"]
        elif note["event"] == "released":
            self.owned.pop(key, None)
        else:
            for name in note["modules"]:
                with suppress(Exception):  # the next request reports the error
                    import_module(name)
            gc.freeze()

    def _end(self) -> None:
        """Ask the requests to end, wait for them, and remove the instances."""
        for pidfd in self.workers:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        self.control.setblocking(False)
        waiting: list[socket.socket | int] = [self.notes, *self.workers]
        while self.workers:
            ready = wire.readable(waiting, _END_S)
            if not ready:
                break
            if self.notes in ready:
                self._note(json.loads(self.notes.recv(_NOTE_BYTES)))
            for pidfd in [one for one in ready if isinstance(one, int)]:
                os.waitpid(self.workers.pop(pidfd), 0)
            waiting = [self.notes, *self.workers]
        while wire.readable([self.notes], 0):
            self._note(json.loads(self.notes.recv(_NOTE_BYTES)))
        if self.owned:
            import_module("vmctl.api.worker").remove_all(self.owned, _REMOVALS)


if __name__ == "__main__":
    main()
