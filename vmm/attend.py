"""An attached workload: what it writes is copied here as it comes, what is typed here goes to it, signals too."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from vmctl.linux.stdio import signals_to, write_all

CHUNK_BYTES = 65536
FIRST_BYTE_PERIOD_S = 0.001  # until the first byte has been seen, since that is a mark of the timeline
PERIOD_S = 0.01


def stay(
    logs: tuple[str, str],
    stdin: socket.socket | None,
    more: Callable[[], bool],
    send_signal: Callable[[int], None],
) -> None:
    """Copy until `more`, called once per round, says that the workload has ended."""
    with ExitStack() as stack:
        stack.enter_context(signals_to(send_signal))
        followers = [stack.enter_context(_follower(path, fd)) for fd, path in enumerate(logs, start=1)]
        if stdin is not None:
            threading.Thread(target=_feed, args=(stdin,), name="stdin", daemon=True).start()
        period_s, going_on = FIRST_BYTE_PERIOD_S, True
        while going_on:
            going_on = more()  # before the copying: the last round finds all there is
            if sum(copy() for copy in followers):  # all of them, each round
                period_s = PERIOD_S
            elif going_on:
                time.sleep(period_s)


@contextmanager
def _follower(path: str, target: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that copies what has been added to a log and returns whether there was something."""
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


def _feed(stdin: socket.socket) -> None:
    """Send our standard input to its end. A thread: both sides may block, for as long as they like.

    Only the sending half is closed: QEMU drops what it has not read yet when the whole connection goes.
    """
    with suppress(OSError):  # the guest is gone, or our standard input is closed
        while content := os.read(0, CHUNK_BYTES):
            stdin.sendall(content)
        stdin.shutdown(socket.SHUT_WR)
