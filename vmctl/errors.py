"""Errors: what failed, on which object, and what the user can do about it.

Libraries raise them; only the command line prints and exits.
The exit codes are those of docker-run(1) and env(1), plus 124 as in timeout(1).
"""

from __future__ import annotations

EXIT_TIMEOUT = 124
EXIT_VMCTL = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class VmctlError(Exception):
    """A sentence that names the object, an optional hint, and the exit code of the command line."""

    exit_code = EXIT_VMCTL

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.detail = detail  # printed below the sentence, for instance the last lines of a console


class SpecError(VmctlError):
    """The workload file, or a flag of the command line, is wrong."""


class UnavailableError(VmctlError):
    """This host lacks something the mode needs (root, QEMU, a kernel feature)."""


class NotFoundError(VmctlError):
    """No such instance or image."""


class ConflictError(VmctlError):
    """The name, port or lock is taken by something else."""


class StateError(VmctlError):
    """The instance is not in the state the verb needs."""


class CommandNotFoundError(VmctlError):
    """The command is not in the image."""

    exit_code = EXIT_NOT_FOUND


class CommandNotExecutableError(VmctlError):
    """The command is in the image but cannot be executed."""

    exit_code = EXIT_NOT_EXECUTABLE


class DeadlineError(VmctlError):
    """A time limit of vmctl has passed."""

    exit_code = EXIT_TIMEOUT
