"""An attached workload: its output is copied to this process's descriptors as it comes, its input from one."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from vmctl.linux.stdio import write_all

CHUNK_BYTES = 65536
FIRST_BYTE_PERIOD_S = 0.001  # until the first byte has been seen, since that is a mark of the timeline
PERIOD_S = 0.01


def stay(
    logs: tuple[str, str], streams: tuple[int, int, int], stdin: socket.socket | None, more: Callable[[], bool]
) -> None:
    """Copy the logs to the second and third stream, and the first one to `stdin`, while `more` returns True.

    It is called once per round.
    """
    with ExitStack() as stack:
        followers = [stack.enter_context(_follower(path, fd)) for path, fd in zip(logs, streams[1:], strict=True)]
        if stdin is not None:
            threading.Thread(target=_feed, args=(streams[0], stdin), name="stdin", daemon=True).start()
        period_s, going_on = FIRST_BYTE_PERIOD_S, True
        while going_on:
            going_on = more()  # before the copying, so that the last round finds everything
            if sum(copy() for copy in followers):  # all of them, each round
                period_s = PERIOD_S
            elif going_on:
                time.sleep(period_s)


@contextmanager
def _follower(path: str, target: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that copies what has been added to a log and returns whether that was anything."""
    log = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def copy() -> bool:
        found = False
        while content := os.read(log, CHUNK_BYTES):
            write_all(target, content)
            found = True
        return found

    try:
        yield copy
    finally:
        os.close(log)


def _feed(source: int, stdin: socket.socket) -> None:
    """Send a descriptor's content to its end. This runs in a thread, since both sides may block.

    Only the sending half is closed: QEMU drops what it has not read yet when the whole connection goes.
    """
    with suppress(OSError):  # the guest is gone, or the source is closed
        while content := os.read(source, CHUNK_BYTES):
            stdin.sendall(content)
        stdin.shutdown(socket.SHUT_WR)
