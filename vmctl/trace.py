"""The trace of a command: each step it takes on the host, as a line for a shell with its time.

Enabled by `VMCTL_TRACE=FILE` or `vmctl --trace FILE`. A line is the equivalent shell command, or a comment if no such
command exists. It is followed by the seconds since the start and by the process, as its pid in its own PID namespace.

Child processes write to the same file, each line with a single write(2). The descriptor is closed on exec, so programs
do not inherit it. Without a trace, each step costs one check of `on`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from time import monotonic_ns

from vmctl.errors import VmctlError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

on = False  # checked before a line is composed
prefix = ""  # the command that enters the namespace of the following steps
gate: Callable[[str, str], None] | None = None  # gets each line and its note; it returns when the next step may follow
_fd = -1
_begun_ns = 0


def start(path: str, words: list[str]) -> None:
    """Trace this process and its children from now on; `words` are the arguments of vmctl. Raises VmctlError.

    The trace is appended to the file `path`; `-` means standard error.
    """
    global on, _fd, _begun_ns
    from vmctl.linux import commands  # a container's first process cannot import it

    try:
        _fd = _open(path)
    except OSError as error:
        raise VmctlError(
            f"the trace cannot be written to {path}: {error.strerror}", hint="use another file, or - for standard error"
        ) from error
    on, _begun_ns = True, monotonic_ns()
    comment(commands.join(["vmctl", *words]))


def step(command: str, note: str = "") -> None:
    """Write the shell command for a step that was just taken or is about to be taken."""
    _write(f"{prefix}{command}  # {_when(monotonic_ns())}{note and ': '}{note}\n")
    if gate is not None:
        gate(f"{prefix}{command}", note)


def comment(text: str, at_ns: int | None = None) -> None:
    """Write a step that has no shell command; `at_ns` is its time on the monotonic clock, by default now."""
    _write(f"# {_when(at_ns or monotonic_ns())}: {text}\n")
    if gate is not None:
        gate(text, "#")


def _open(path: str) -> int:
    if path in ("-", "/dev/stderr"):  # opening it by name fails if it is a socket
        return os.dup(2)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o600)


def _when(at_ns: int) -> str:
    return f"{(at_ns - _begun_ns) / 1e9:+.6f} s, process {os.getpid()}"


def _write(line: str) -> None:
    with suppress(OSError):  # a full disk must not stop a start
        os.write(_fd, line.encode(errors="surrogateescape"))
