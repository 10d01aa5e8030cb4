"""The trace of a command: what it does on the host, as lines for a shell, each with its time.

`VMCTL_TRACE=FILE` or `vmctl --trace FILE`. A line is the command that one would type, or a comment if no command does
that. Then follow the seconds since vmctl was called, and the process, by its number in its own PID namespace.

Child processes write to the same file, each line with a single write(2). The descriptor is closed on exec, so nothing
that is started inherits it. Without a trace, each step costs one look at `on`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from time import monotonic_ns

from vmctl.errors import VmctlError

on = False  # to be asked before a line is composed
prefix = ""  # how one gets to the namespace in which the steps are taken
_fd = -1
_begun_ns = 0


def start(path: str, words: list[str]) -> None:
    """Trace this process and its children from now on; `words` are the command's. Raises VmctlError.

    The trace is appended to the file `path`; `-` is the standard error.
    """
    global on, _fd, _begun_ns
    from vmctl.linux import commands  # a container's first process cannot import it

    try:
        _fd = _open(path)
    except OSError as error:
        raise VmctlError(
            f"the trace cannot be written to {path}: {error.strerror}", hint="name a file, or - for the standard error"
        ) from error
    on, _begun_ns = True, monotonic_ns()
    comment(commands.join(["vmctl", *words]))


def step(command: str, note: str = "") -> None:
    """Write a command that does what has just been done, or is about to be done."""
    _write(f"{prefix}{command}  # {_when(monotonic_ns())}{note and ': '}{note}\n")


def comment(text: str, at_ns: int | None = None) -> None:
    """Write what cannot be typed; `at_ns` is its time on the monotonic clock, by default now."""
    _write(f"# {_when(at_ns or monotonic_ns())}: {text}\n")


def _open(path: str) -> int:
    if path in ("-", "/dev/stderr"):  # opened by name it would be refused if it is a socket
        return os.dup(2)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o600)


def _when(at_ns: int) -> str:
    return f"{(at_ns - _begun_ns) / 1e9:+.6f} s, process {os.getpid()}"


def _write(line: str) -> None:
    with suppress(OSError):  # a full disk must not stop a start
        os.write(_fd, line.encode(errors="surrogateescape"))
