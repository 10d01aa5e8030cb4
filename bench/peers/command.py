"""Time a program from the outside: when it was started, when its first byte arrived, when it ended."""

from __future__ import annotations

import os
from time import monotonic_ns
from typing import NamedTuple

from vmctl.errors import UnavailableError, VmctlError
from vmctl.programs import which


class Timing(NamedTuple):
    """Moments on CLOCK_MONOTONIC, in nanoseconds; `first_byte_ns` is None if the program wrote nothing."""

    start_ns: int
    first_byte_ns: int | None
    exit_ns: int
    errors: str

    def first_byte_s(self) -> float:
        """Return the seconds from start to first byte. Raises VmctlError if the program wrote nothing."""
        if self.first_byte_ns is None:
            raise VmctlError("the program wrote nothing")
        return (self.first_byte_ns - self.start_ns) / 1e9

    def exit_s(self) -> float:
        """Return the seconds from start to end."""
        return (self.exit_ns - self.start_ns) / 1e9


def time_command(argv: list[str]) -> Timing:
    """Run a program to its end and return its moments. Raises VmctlError if it is missing or fails."""
    path = which(argv[0])
    if path is None:
        raise UnavailableError(f"the program {argv[0]} is not installed")
    read, write = os.pipe()
    errors = os.memfd_create("stderr")
    try:
        with open(os.devnull, "rb") as null:
            streams = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((null.fileno(), write, errors))]
            start_ns = monotonic_ns()
            pid = os.posix_spawn(path, argv, _environment(), file_actions=streams)
            os.close(write)
            first_byte_ns = monotonic_ns() if os.read(read, 1) else None
            status = os.waitpid(pid, 0)[1]
            exit_ns = monotonic_ns()
        text = os.pread(errors, 65536, 0).decode(errors="replace").strip()
    finally:
        os.close(read)
        os.close(errors)
    if status != 0:
        raise VmctlError(f"{argv[0]} failed: {text.splitlines()[-1] if text else 'no message'}")
    return Timing(start_ns, first_byte_ns, exit_ns, text)


def spawn(argv: list[str], log: str) -> int:
    """Start a program with empty input and a log for its output, and return its pid."""
    path = which(argv[0])
    if path is None:
        raise UnavailableError(f"the program {argv[0]} is not installed")
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(path, argv, os.environ, file_actions=streams)


def _environment() -> dict[str, str]:
    """Return a user's environment. With PYTHONDONTWRITEBYTECODE, each start would compile recently edited files."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
