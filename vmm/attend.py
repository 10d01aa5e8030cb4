"""An attached workload: copy its output to descriptors of this process as it is written, and its input from one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from vmctl.linux.events import LOOK_S, Events
from vmctl.linux.stdio import write_all
from vmctl.logs.logfile import LogReader

CHUNK_BYTES = 65536


def stay(
    logs: tuple[str, str],
    streams: tuple[int, int, int],
    stdin: socket.socket | None,
    more: Callable[[], bool],
    happened: Events,
) -> None:
    """Copy the logs to the second and third stream, and the first stream to `stdin`, while `more` returns True.

    `more` is called after each event, which are those of the instance.
    """
    with ExitStack() as stack:
        followers = [stack.enter_context(_follower(path, fd)) for path, fd in zip(logs, streams[1:], strict=True)]
        if stdin is not None:
            threading.Thread(target=_feed, args=(streams[0], stdin), name="stdin", daemon=True).start()
        again = True
        while again:
            again = more()  # before copying, so that the last round copies everything
            copied = sum(copy() for copy in followers)  # `sum`, not `any`: each round copies all logs
            if again and not copied:
                happened.wait(LOOK_S)


@contextmanager
def _follower(path: str, target: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that copies the new content of a log and returns whether there was any."""
    log = LogReader(path)

    def copy() -> bool:
        found = False
        while content := log.read():
            write_all(target, content)
            found = True
        return found

    try:
        yield copy
    finally:
        log.close()


def _feed(source: int, stdin: socket.socket) -> None:
    """Send a descriptor's content to the socket. Runs in a thread, because both sides may block.

    Only the sending half is closed: if the whole connection is closed, QEMU drops the data that it has not read yet.
    """
    with suppress(OSError):  # the guest has powered off, or the source is closed
        while content := os.read(source, CHUNK_BYTES):
            stdin.sendall(content)
        stdin.shutdown(socket.SHUT_WR)
