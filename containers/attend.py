"""What connects the caller's streams with a workload, and the wait for its end."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

from containers.launch import Streams
from vmctl.light import signal
from vmctl.linux import processes
from vmctl.linux.stdio import drain, only_bytes, signals_to, woken
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from vmctl.linux.relay import Relay

# the terminal would send them to the whole process group (termios(3), ISIG)
_TYPED = (signal.SIGINT, signal.SIGQUIT)


class Connection:
    """The streams of one attached process. `streams` are those that it gets; a context manager that closes ours.

    The caller's own streams are handed over only if they give nothing but their bytes; pipes of ours replace the
    others.
    """

    def __init__(self, caller: Streams) -> None:
        self.streams = caller
        self._relay: Relay | None = None
        self._handed_over: set[int] = set()
        if not all(map(only_bytes, caller)):
            self._replace(caller)

    def _replace(self, caller: Streams) -> None:
        from vmctl.linux.relay import Feed, Relay

        stdin, stdout, stderr = caller
        feed: Feed | None = None
        outputs: dict[int, int] = {}
        if not only_bytes(stdin):
            read, write = os.pipe()
            os.fchmod(read, 0o644)  # a workload of any user can open /dev/stdin
            is_file = stat.S_ISREG(os.fstat(stdin).st_mode)
            feed, stdin = Feed(stdin, write, unread=read if is_file else None), read
            if not is_file:
                self._handed_over.add(read)
        if not only_bytes(stdout):
            stdout = self._output(outputs, stdout)
        if not only_bytes(stderr):
            # one pipe for one file: so the order of both is kept
            together = stdout != caller.stdout and os.path.sameopenfile(caller.stdout, caller.stderr)
            stderr = stdout if together else self._output(outputs, stderr)
        self.streams, self._relay = Streams(stdin, stdout, stderr), Relay(outputs, feed)

    def _output(self, outputs: dict[int, int], target: int) -> int:
        read, write = os.pipe()
        os.fchmod(write, 0o622)
        outputs[read] = target
        self._handed_over.add(write)
        return write

    def started(self) -> None:
        """Close what only the workload has to have."""
        while self._handed_over:
            os.close(self._handed_over.pop())

    def attend(self, pid: int, send: Callable[[int], object] | None) -> int:
        """Wait for the end of the workload, our child, and return its wait status.

        In the foreground signals are passed on by `send`, those that are typed also to its process group.
        """
        with ExitStack() as stack:
            signals = None
            if send is not None:
                signals = stack.enter_context(woken())
                stack.enter_context(signals_to(partial(pass_on, pid, send)))
            if self._relay is not None:
                self._relay.run(pid, signals)
            else:
                wait_for_end(pid, signals)
        return os.waitpid(pid, 0)[1]  # only now somebody else can get its pid: the handlers are gone

    def close(self) -> None:
        """Close the descriptors; repeatable."""
        self.started()
        if self._relay is not None:
            self._relay.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for_end(pid: int, signals: int | None) -> None:
    """Wait until a child has ended, and run handlers meanwhile; `signals` is the descriptor of `stdio.woken`."""
    ended = os.pidfd_open(pid)
    try:
        poller = select.poll()
        for fd in (ended, signals):
            if fd is not None:
                poller.register(fd, select.POLLIN)
        while ended not in dict(poller.poll()):
            if signals is not None:
                drain(signals)
    finally:
        os.close(ended)


def pass_on(pid: int, send: Callable[[int], object], signum: int) -> None:
    """Pass a signal on to a child, which leads a process group."""
    # a process of another user, which a set-uid program of the workload has become, may refuse our signals
    with suppress(ProcessLookupError, PermissionError):
        if signum in _TYPED:
            os.killpg(pid, signum)
        if signum not in _TYPED or processes.drops(pid, signum):
            send(signum)
