"""Errors: what failed, on which object, and what the user can do about it.

Libraries raise them; only the command line prints and exits.
The exit codes are those of docker-run(1) and env(1), plus 124 as in timeout(1).
"""

from __future__ import annotations

import errno

EXIT_TIMEOUT = 124
EXIT_VMCTL = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


# errors of system calls for which a host has run out of something, with what helps
_EXHAUSTED = {
    errno.ENOSPC: "the disk has no space or no inodes left: `vmctl df` shows what can be removed",
    errno.EDQUOT: "the disk quota is used up: `vmctl df` shows what can be removed",
    errno.EMFILE: "`ulimit -n` shows how many files this shell's programs may open",
    errno.ENFILE: "`sysctl fs.file-nr` shows how many files all programs have open",
    errno.EAGAIN: "no further process is allowed: `ulimit -u`, and pids.max of the shell's cgroup",
    errno.ENOMEM: "no memory is left: `free -h`, and the limit of the shell's cgroup",
}


def advice(error: OSError) -> str:
    """Return a hint for an error that means that something of the host is used up, else an empty text."""
    return _EXHAUSTED.get(error.errno or 0, "")


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


class BeginAgainError(VmctlError):
    """What a start began with cannot be used, and was removed: a new start of the same instance does without it."""


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


# what a program that uses the Python API may want to distinguish


class NotReady(DeadlineError):  # noqa: N818
    """An instance was not ready in time; `detail` has the last lines of its output."""


class EndedEarly(NotReady):
    """An instance has ended before it was ready."""

    exit_code = EXIT_VMCTL


class NoKvm(UnavailableError):  # noqa: N818
    """KVM was asked for, and runs no guests on this host."""


class NoSuchImage(NotFoundError, UnavailableError):  # noqa: N818
    """The image store has no such image."""


class NoSuchInstance(NotFoundError):  # noqa: N818
    """There is no such instance, or it was removed and another one has its name."""


class NoSuchSnapshot(NotFoundError):  # noqa: N818
    """There is no such snapshot."""


class OutOfDisk(VmctlError):  # noqa: N818
    """The disk or the quota is full."""


class OutOfMemory(VmctlError):  # noqa: N818
    """No memory is left for it."""


def of_system(error: OSError, hint: str = "", what: str = "") -> VmctlError:
    """Return the error for a failed system call: which file, what, and what helps; `hint` if nothing else is known."""
    kinds = {errno.ENOSPC: OutOfDisk, errno.EDQUOT: OutOfDisk, errno.ENOMEM: OutOfMemory}
    where = f" ({error.filename})" if error.filename else ""
    text = f"{what}{': ' if what else ''}{error.strerror or error}{where}"
    return kinds.get(error.errno or 0, VmctlError)(text, hint=advice(error) or hint)
