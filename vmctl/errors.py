"""Errors as values: what failed, on which object, and what the user can do about it.

Libraries raise these; only the command line prints and exits.
The exit codes are those of docker-run(1) and env(1), plus 124 as in timeout(1).
"""

from __future__ import annotations

EXIT_TIMEOUT = 124
EXIT_VMCTL = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class VmctlError(Exception):
    """One sentence that names the object, an optional hint, and the exit code of the command line."""

    exit_code = EXIT_VMCTL

    def __init__(self, message: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.detail = detail  # evidence to print below the sentence, for instance a console's tail


class SpecError(VmctlError):
    """The workload file, or a flag that stands for one of its keys, is wrong."""


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
    """The command is in the image and cannot be executed."""

    exit_code = EXIT_NOT_EXECUTABLE


class DeadlineError(VmctlError):
    """A time limit of ours passed."""

    exit_code = EXIT_TIMEOUT
