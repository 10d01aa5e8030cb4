"""The supervisor of a container: it writes the logs, and the exit code when the container's first process ends.

It runs as long as the container, so it has to be small. After the clone, the copy of vmctl executes a bare interpreter
that imports very little. Its children stay its children: exec replaces the program, not the process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` would import `enum`, 1 MB
import os
import select

from vmctl.linux import madvise
from vmctl.logs.logwriter import Log

TYPE_CHECKING = False  # `typing` would be 1 MB more
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from vmctl.attach.hub import Hub
    from vmctl.keeping.keeper import Keeper
    from vmctl.keeping.runs import Keep

    Served = tuple[int, int, bool, bool]

_LAST_READS = 1024


def become_supervisor(
    child: int,
    written: int,
    stdout: int,
    stderr: int,
    stdout_log: str,
    stderr_log: str,
    exit_file: str,
    log_bytes: int,
    served: Served | None = None,
    keep: Keep | None = None,
) -> NoReturn:
    """Turn this process, the parent of `child`, into its supervisor; `stdout` and `stderr` are the child's pipes.

    With a terminal, `stdout` is its master and `stderr` is -1. `served` is, if there can be callers: their socket, our
    end of the child's input, whether the child has a terminal, and whether the first caller is its owner.

    `written` is an eventfd(2); the supervisor writes to it after each write to a log. `log_bytes` is how much of each
    stream is kept. `keep` is what else it inherits: see vmctl/keeping/runs.py.
    """
    from vmctl.linux.interpreter import become  # the supervisor itself does not need it

    numbers = map(str, (child, written, stdout, stderr))
    arguments = (*numbers, stdout_log, stderr_log, exit_file, str(log_bytes), *(str(int(one)) for one in served or ()))
    fds = [fd for fd in (written, stdout, stderr, *(served or ())[:2]) if fd >= 0]
    held = [keep.held] if keep is not None and keep.held >= 0 else []
    become("containers.supervisor", [*fds, *held], arguments, keep.environment if keep is not None else {})


def main(
    child: str,
    written: str,
    stdout: str,
    stderr: str,
    stdout_log: str,
    stderr_log: str,
    exit_file: str,
    log_bytes: str,
    *served: str,
) -> None:
    """Copy both streams to their logs until the child exits, then write `CODE SOURCE` to the exit file."""
    for signum in (_signal.SIGINT, _signal.SIGHUP, _signal.SIGTERM):  # it exits only after its child
        _signal.signal(signum, _signal.SIG_IGN)
    limit = int(log_bytes) // 2  # there are two parts
    logs = {int(stdout): Log(stdout_log, limit)}
    if int(stderr) >= 0:
        logs[int(stderr)] = Log(stderr_log, limit)
    pidfd = os.pidfd_open(int(child))
    poller = select.poll()
    for fd in (pidfd, *logs):
        poller.register(fd, select.POLLIN)
    hub = _hub(poller, int(child), logs, *map(int, served)) if served else None
    keeper = _keeper(poller)
    madvise.drop_clean_pages()
    while True:
        ready = dict(poller.poll(_wait_ms(hub, keeper)))
        if keeper is not None:
            keeper.handle(ready)
        for fd in logs.keys() & ready.keys():
            if _copy(fd, logs[fd], hub):
                os.eventfd_write(int(written), 1)
            else:
                poller.unregister(fd)
                del logs[fd]
        if hub is not None:
            hub.handle(ready)
        if pidfd in ready:
            break
    for fd, log in logs.items():  # output written just before the end; other processes may keep the pipe open
        os.set_blocking(fd, False)
        for _ in range(_LAST_READS):  # and may write to it without end
            if not _copy(fd, log, hub) or (hub is not None and not hub.room()):
                break
        log.finish()
    _write_exit(exit_file, os.waitstatus_to_exitcode(os.waitpid(int(child), 0)[1]))
    if hub is not None:
        hub.finish()
    if keeper is not None:
        keeper.ended()


def _keeper(poller: select.poll) -> Keeper | None:
    """Return what checks and restarts the workload; None if it needs neither."""
    if "VMCTL_KEEP" not in os.environ:
        return None
    from vmctl.keeping.keeper import Keeper

    return Keeper(poller)


def _wait_ms(*parts: Hub | Keeper | None) -> float | None:
    """Return how long to wait for descriptors: as long as each of the parts may wait, None without limit."""
    limits = [limit for part in parts if part is not None and (limit := part.wait_ms()) is not None]
    return min(limits) if limits else None


def _hub(
    poller: select.poll, child: int, outputs: Iterable[int], listener: int, stdin: int, terminal: int, owned: int
) -> Hub:
    """Return what serves the callers of the child."""
    from vmctl.attach import hub, size

    return hub.Hub(
        poller,
        listener,
        stdin,
        outputs,
        resize=(lambda *values: size.set_size(stdin, *values)) if terminal else None,
        hang_up=lambda: os.kill(child, _signal.SIGKILL),
        owned=bool(owned),
    )


def _copy(source: int, log: Log, hub: Hub | None) -> bool:
    """Copy the available bytes; return False at the end of the stream."""
    try:
        data = os.read(source, 65536)
    except OSError:  # EAGAIN; EIO: no process has the terminal open any more
        return False
    if data:
        log.write(data)
        if hub is not None:
            hub.show(source, data)
    return bool(data)


def _write_exit(path: str, code: int) -> None:
    """Write into the file that was made before the start: its block is there, also on a full disk."""
    text = f"{code} workload\n" if code >= 0 else f"{128 - code} signal\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(fd, text.encode(), 0)
    os.close(fd)
