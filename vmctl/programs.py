"""Run other programs: every call of a program goes through here.

A command is a list, never a shell line. Output goes to memory files, not to pipes: nothing can fill up and block, no
reader thread is needed, and `subprocess` (15 ms to import) is not imported on the start path.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from vmctl import trace
from vmctl.errors import UnavailableError, VmctlError
from vmctl.which import which as which

_TICK_S = 0.2
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class CommandError(VmctlError):
    """A program exited with a code other than 0, or did not end in time."""

    def __init__(self, argv: list[str], returncode: int, output: str) -> None:
        self.reason = (output.strip().splitlines() or ["no message"])[-1]
        super().__init__(f"{argv[0]} failed with code {returncode}: {self.reason}", detail=output)
        self.argv = argv
        self.returncode = returncode
        self.output = output


def run(
    argv: list[str],
    *,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
    timeout_s: float = 60.0,
    check: bool = True,
    cwd: str | None = None,
    tick: Callable[[int], None] | None = None,
    outlives: bool = False,
) -> tuple[int, str, str]:
    """Run a program to its end and return (code, stdout, stderr); the code is -n if signal n ended it.

    `tick` is called with the pid five times a second while the program runs, to show progress; an exception in it
    kills the program. If this process is killed, the program ends too, unless it `outlives`. Raises UnavailableError if
    the program is not installed, CommandError if it fails and `check` is set, or if it still runs after `timeout_s`
    (then it is killed).
    """
    path = which(argv[0])
    if path is None:
        raise UnavailableError(f"the program {argv[0]} is not installed", hint="`vmctl doctor` shows how to install it")
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # a signal between spawn and wait would leave it running
    try:
        os.write(files[0], stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        if cwd is not None:  # posix_spawn cannot set the working directory; env(1) can
            argv, path = ["env", "-C", cwd, path, *argv[1:]], which("env") or "/usr/bin/env"
        if trace.on:
            trace.step(typed(argv, env, stdin))
        path, words = (path, argv) if outlives else ending_with_us(path, argv)
        pid = os.posix_spawn(
            path,
            words,
            os.environ if env is None else env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(files)],
            setsigdef=[signal.SIGPIPE],
            setsigmask=mask,
        )
        code = _wait(pid, timeout_s, tick, mask)
        if trace.on:
            trace.comment(f"{argv[0]} ended with code {code}")
        stdout, stderr = (_content(fd) for fd in files[1:])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for fd in files:
            os.close(fd)
    if code is None:
        raise CommandError(argv, -signal.SIGKILL, f"did not end within {timeout_s:g} s\n{stderr or stdout}")
    if check and code != 0:
        raise CommandError(argv, code, stderr or stdout)
    return code, stdout, stderr


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python; -P: no module is taken from the working directory."""
    return [sys.executable, "-P", "-m", name, *arguments]


def ending_with_us(path: str, argv: list[str]) -> tuple[str, list[str]]:
    """Return the program and arguments that run `path`, and end it (SIGTERM) if this process is killed.

    posix_spawn cannot request PR_SET_PDEATHSIG (prctl(2)); setpriv(1) can. Without it, as on a host without util-linux,
    the program would only survive a killed command.
    """
    setpriv = which("setpriv")
    if setpriv is None:
        return path, argv
    return setpriv, [setpriv, "--pdeathsig", "TERM", path, *argv[1:]]


def typed(argv: Sequence[str], env: Mapping[str, str] | None = None, stdin: bytes = b"") -> str:
    """Return the command line that one would type in this process's environment, for the trace."""
    from vmctl.linux import commands

    changed = [f"{name}={value}" for name, value in (env or {}).items() if os.environ.get(name) != value]
    dropped = [] if env is None else [word for name in os.environ if name not in env for word in ("-u", name)]
    words = ["env", *dropped, *changed, *argv] if changed or dropped else argv
    return commands.join(words) + (f" <<< {commands.quote(stdin.decode(errors='replace'))}" if stdin else "")


def _wait(
    pid: int, timeout_s: float, tick: Callable[[int], None] | None, mask: set[int | signal.Signals]
) -> int | None:
    """Return the exit code, or None after a timeout; `mask` is the signal mask to wait with."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        in_time = _ends(pid, pidfd, timeout_s, tick)
    except BaseException:  # Ctrl-C here must not leave the program behind
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(pidfd)
    if not in_time:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if in_time else None


def _ends(pid: int, pidfd: int, timeout_s: float, tick: Callable[[int], None] | None) -> bool:
    """Return whether the program ends in time."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    deadline_s = time.monotonic() + timeout_s
    while tick is not None and deadline_s - time.monotonic() > _TICK_S:
        if poller.poll(_TICK_S * 1000):
            return True
        tick(pid)
    return bool(poller.poll(max(0.0, deadline_s - time.monotonic()) * 1000))


def _content(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read().decode(errors="replace")
