"""Run a program and read its output while it runs: like `run`, for output that does not fit into memory."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from vmctl import trace
from vmctl.errors import UnavailableError
from vmctl.programs import CommandError, ending_with_us, typed, which

_PART = 1 << 16
_TAIL_LINES = 20
_TERM_TIMEOUT_S = 10.0  # between SIGTERM and SIGKILL


class Output:
    """The standard output of a running program; each line of its standard error is given to `on_error_line`."""

    def __init__(
        self, argv: list[str], pidfd: int, stdout: int, stderr: int, on_error_line: Callable[[str], None]
    ) -> None:
        self._argv = argv
        self._pidfd = pidfd
        self._stdout, self._stderr = stdout, stderr
        self._on_error_line = on_error_line
        self._line = b""
        self._tail: list[str] = []
        self._open = {stdout, stderr}

    def read(self, size: int = _PART) -> bytes:
        """Return up to `size` bytes, none at the end. Raises CommandError at the end if the program has failed."""
        while self._open:
            for fd in sorted(_readable(self._open), key=lambda fd: fd == self._stdout):  # standard error first
                data = os.read(fd, min(size, _PART))
                if not data:
                    self._open.remove(fd)
                elif fd == self._stdout:
                    return data
                else:
                    self._read_error_lines(data)
        self._read_error_lines(b"\n" if self._line else b"")
        code = os.waitstatus_to_exitcode(_waited(self._pidfd))
        if code != 0:
            raise CommandError(self._argv, code, "\n".join(self._tail))
        return b""

    def _read_error_lines(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            self._tail = [*self._tail, text][-_TAIL_LINES:]
            self._on_error_line(text)


def _waited(pidfd: int) -> int:
    """Wait for the child of `pidfd` and return its wait status."""
    found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return os.waitpid(found.si_pid, 0)[1]


@contextmanager
def stream(
    argv: list[str],
    env: Mapping[str, str],
    on_error_line: Callable[[str], None] = lambda _: None,
    keep: Sequence[int] = (),
) -> Iterator[Output]:
    """Run a program and yield its standard output; leaving the block before the program's end ends the program.

    The program and its children inherit the descriptors `keep`. Raises UnavailableError if it is not installed.
    """
    path = which(argv[0])
    if path is None:
        raise UnavailableError(f"the program {argv[0]} is not installed", hint="`vmctl doctor` shows how to install it")
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    ends = [null]
    try:
        stdout, stdout_write = os.pipe()
        ends += [stdout, stdout_write]
        stderr, stderr_write = os.pipe()
        ends += [stderr, stderr_write]
        inherited = [(null, 0), (stdout_write, 1), (stderr_write, 2), *((fd, fd) for fd in keep)]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in inherited]
        if trace.on:
            trace.step(typed(argv, env))
        path, words = ending_with_us(path, argv)
        pid = os.posix_spawn(path, words, env, file_actions=actions, setsigdef=[signal.SIGPIPE], setpgroup=0)
        pidfd = os.pidfd_open(pid)
        ends.append(pidfd)
        for fd in (stdout_write, stderr_write):
            os.close(fd)
            ends.remove(fd)
        try:
            yield Output(argv, pidfd, stdout, stderr, on_error_line)
        finally:
            _end(pid, pidfd, (stdout, stderr))
    finally:
        for fd in ends:
            os.close(fd)


def _end(pid: int, pidfd: int, output: Sequence[int]) -> None:
    """Send SIGTERM to a program and its children, so that they can clean up, then SIGKILL, and wait for all of them.

    Does nothing if the program was waited for.
    """
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return  # it was waited for already
    for signum in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(pid, signum)
        if _gone(pidfd, output, _TERM_TIMEOUT_S):
            break
    os.waitpid(pid, 0)


def _gone(pidfd: int, output: Sequence[int], timeout_s: float) -> bool:
    """Wait until a program has ended and no child of it holds its output; return False after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    waiting = {pidfd, *output}
    while waiting:
        ready = _readable(waiting, max(0.0, deadline_s - time.monotonic()))
        if not ready:
            return False
        waiting -= {fd for fd in ready if fd == pidfd or not os.read(fd, _PART)}
    return True


def _readable(fds: Iterable[int], timeout_s: float | None = None) -> list[int]:
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _ in poller.poll(None if timeout_s is None else timeout_s * 1000)]
