"""The stage: a process that shows the steps of a start on the terminal, and lets the next one happen on Enter.

It is a fork of the command, in the foreground with it. So Ctrl-C ends both: the command takes back what it has made,
and a process that waits here goes on, and is ended by the command.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from vmctl import console, trace
from vmctl.named import NamedTuple
from vmctl.phases import PHASES
from vmctl.stepping import changes, kinds
from vmctl.stepping.gate import Gate
from vmctl.steps import Step

_MESSAGE_BYTES = 1 << 18
_NO_STEP = ("mark ", "refused: ", "move_mount: ")  # comments of the trace
_SHOWN = 3  # of the lines that belong to a step
PROMPT = "[Enter: go on; c: to the end; Ctrl-C: take it back] "
_UCRED = "iII"  # struct ucred of unix(7): pid, uid, gid


@contextmanager
def opened(steps: Sequence[Step], write: Callable[[str], None], *, root: bool, each: bool) -> Iterator[None]:
    """Let each step of this process and its children wait for Enter on standard input, in the `with` block.

    `steps` are those of --explain, with the reasons; `write` writes text to the terminal; `root`: the caller has all
    privileges on the host; `each`: steps of one kind in a row wait too.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    caller = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            ours.close()
            _Stage(theirs, caller, steps, write, root=root, each=each).play()
        finally:
            os._exit(0)
    theirs.close()
    before = trace.on
    trace.gate, trace.on = Gate(ours), True
    try:
        yield
    finally:
        trace.gate, trace.on = None, before
        ours.close()
        with suppress(ProcessLookupError):  # it shows nothing any more
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class _Report(NamedTuple):
    """A step that a process has taken, or is about to take, and the pipe on which it waits."""

    pid: int
    thread: int
    command: str
    note: str
    answer: int


class _Stage:
    def __init__(
        self,
        connection: socket.socket,
        caller: int,
        steps: Sequence[Step],
        write: Callable[[str], None],
        *,
        root: bool,
        each: bool,
    ) -> None:
        self._connection, self._caller, self._steps, self._write = connection, caller, steps, write
        self._root, self._each = root, each
        self._ended = os.pidfd_open(caller)
        self._seen = {caller: changes.seen(caller)}
        self._last: dict[int, kinds.Kind] = {}
        self._lines: list[str] = []  # that were not shown so far
        self._phase, self._count, self._waits = "", 0, True

    def play(self) -> None:
        """Show steps until the command has ended."""
        while self._ended not in select.select([self._connection.fileno(), self._ended], [], [])[0]:
            report = self._receive()
            if report is None:
                return
            try:
                self._take(report)
            finally:
                with suppress(BrokenPipeError):
                    os.write(report.answer, b"g")
                os.close(report.answer)

    def _receive(self) -> _Report | None:
        size = socket.CMSG_SPACE(struct.calcsize("i")) + socket.CMSG_SPACE(struct.calcsize(_UCRED))
        data, more, _, _ = self._connection.recvmsg(_MESSAGE_BYTES, size)
        if not data:
            return None
        pid, answer = 0, -1
        for _, kind, content in more:
            if kind == socket.SCM_RIGHTS:
                answer = array.array("i", content[:4])[0]
            else:
                pid = struct.unpack(_UCRED, content)[0]
        message = json.loads(data)
        return _Report(pid, message["thread"], message["command"], message["note"], answer)

    def _take(self, report: _Report) -> None:
        last = self._last.get(report.pid, kinds.OTHER)
        found = kinds.of(report.command, report.note, inside=report.pid != self._caller, last=last.name)
        if found is None and self._each and not report.note.startswith("#"):
            found = kinds.Found(kinds.OTHER, {})
        again = found is not None and found.kind is last and not self._each
        if not self._waits or found is None or again:
            if not report.command.startswith(_NO_STEP):
                self._lines.append(report.command)
            return
        self._last[report.pid] = found.kind
        self._show(report, found)
        self._wait()

    def _show(self, report: _Report, found: kinds.Found) -> None:
        kind = found.kind
        for text in self._rest():
            self._say(f"    also {text}")
        if kind.phase != self._phase and kind.phase in PHASES:
            self._phase = kind.phase
            self._say(f"{PHASES[kind.phase].title.upper()}: {PHASES[kind.phase].why}")
        self._count += 1
        self._say(f"{self._count:3}. {kind.name}")
        if not report.command.startswith(kinds.PHASE):
            self._say(f"    {'next' if kind.next else 'done'} {report.command}  # process {report.pid}")
        for text in kinds.why(kind, self._steps).splitlines():
            self._say(f"    why  {text}")
        before = self._seen.get(report.pid, self._seen[self._caller])
        self._seen[report.pid] = changes.seen(report.pid)
        for text in changes.between(before, self._seen[report.pid]):
            self._say(f"    now  {text}")
        self._say(f"    look {found.look(report.pid, report.thread, root=self._root)}")

    def _rest(self) -> list[str]:
        lines, self._lines = self._lines, []
        more = [f"{len(lines) - _SHOWN} more of them"] if len(lines) > _SHOWN else []
        return [*lines[:_SHOWN], *more]

    def _wait(self) -> None:
        self._write(PROMPT)
        if self._ended in select.select([0, self._ended], [], [])[0]:
            os._exit(0)
        answer = os.read(0, 1024)
        if not answer or answer.strip().lower().startswith(b"c"):  # Ctrl-D is the end of the input
            self._waits = False
        if not answer.endswith(b"\n"):
            self._say("")

    def _say(self, text: str) -> None:
        self._write(f"{console.visible(text)}\n")
