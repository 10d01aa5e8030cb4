"""The supervisor of a container: it writes the logs, and the exit code when the container's first process ends.

It runs as long as the container, so it has to be small. After the clone, the copy of vmctl executes a bare interpreter
(`-I -S`: no site-packages, no environment) that imports very little. Its children stay its children: exec replaces the
program, not the process.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` would import `enum`, 1 MB
import os
import select
import sys

from vmctl.linux import madvise

TYPE_CHECKING = False  # `typing` would be 1 MB more
if TYPE_CHECKING:
    from typing import NoReturn

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BOOT = "import sys; sys.path.append(sys.argv[1]); from containers.supervisor import main; main(*sys.argv[2:])"


def become_supervisor(
    child: int, written: int, stdout: int, stderr: int, stdout_log: str, stderr_log: str, exit_file: str
) -> NoReturn:
    """Turn this process, the parent of `child`, into its supervisor; `stdout` and `stderr` are the child's pipes.

    `written` is an eventfd(2); the supervisor writes to it after each write to a log.
    """
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in (written, stdout, stderr):
        os.set_inheritable(fd, True)
    arguments = (_ROOT, str(child), str(written), str(stdout), str(stderr), stdout_log, stderr_log, exit_file)
    # LC_ALL=C: the tables of a locale take 130 KiB and are not needed here
    python = sys.executable
    os.execve(python, (python, "-I", "-S", "-X", "utf8", "-c", _BOOT, *arguments), {"LC_ALL": "C"})


def main(child: str, written: str, stdout: str, stderr: str, stdout_log: str, stderr_log: str, exit_file: str) -> None:
    """Copy both streams to their logs until the child exits, then write `CODE SOURCE` to the exit file."""
    for signum in (_signal.SIGINT, _signal.SIGHUP, _signal.SIGTERM):  # it exits only after its child
        _signal.signal(signum, _signal.SIG_IGN)
    logs = {int(stdout): _open_log(stdout_log), int(stderr): _open_log(stderr_log)}
    pidfd = os.pidfd_open(int(child))
    poller = select.poll()
    for fd in (pidfd, *logs):
        poller.register(fd, select.POLLIN)
    madvise.drop_clean_pages()
    while True:
        ready = [fd for fd, _ in poller.poll()]
        for fd in logs.keys() & set(ready):
            if _copy(fd, logs[fd]):
                os.eventfd_write(int(written), 1)
            else:
                poller.unregister(fd)
                del logs[fd]
        if pidfd in ready:
            break
    for fd, log in logs.items():  # output written just before the end; other processes may keep the pipe open
        os.set_blocking(fd, False)
        while _copy(fd, log):
            pass
    _write_exit(exit_file, os.waitstatus_to_exitcode(os.waitpid(int(child), 0)[1]))


def _open_log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _copy(source: int, log: int) -> bool:
    """Copy the available bytes; return False at the end of the stream."""
    try:
        data = os.read(source, 65536)
    except BlockingIOError:
        return False
    try:
        os.write(log, data)
    except OSError:
        pass  # with a full disk, log lines are lost, but the workload runs on
    return bool(data)


def _write_exit(path: str, code: int) -> None:
    """Write into the file that was made before the start: its block is there, also on a full disk."""
    text = f"{code} workload\n" if code >= 0 else f"{128 - code} signal\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(fd, text.encode(), 0)
    os.close(fd)
