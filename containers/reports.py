"""What a new process reports before exec, through a pipe to the parent: namespaces, times of phases, and an error."""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl.errors import CommandNotExecutableError, CommandNotFoundError, VmctlError, advice
from vmctl.linux import syscalls
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {kind.__name__: kind for kind in (CommandNotFoundError, CommandNotExecutableError)}

_RECEIPT, _PHASES = b"namespaces ", b"phases "
_FLAGS = {  # name in /proc/PID/ns -> flag of clone3(2)
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "ipc": syscalls.CLONE_NEWIPC,
    "mnt": syscalls.CLONE_NEWNS,
    "net": syscalls.CLONE_NEWNET,
    "pid": syscalls.CLONE_NEWPID,
    "user": syscalls.CLONE_NEWUSER,
    "uts": syscalls.CLONE_NEWUTS,
}


def own_namespaces() -> int:
    """Return a descriptor of /proc/self/ns of this process: it shows its namespaces also after it has changed them.

    Opened before anything of the image is mounted, so the image cannot put another folder there.
    """
    return os.open("/proc/self/ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def namespaces(folder: int) -> dict[str, int]:
    """Return the inode of each namespace (namespaces(7)) by its name, as this process has them now."""
    found = {}
    for name in _FLAGS:
        with suppress(FileNotFoundError):  # a kernel without it
            found[name] = os.stat(name, dir_fd=folder).st_ino
    return found


def receipt(folder: int) -> bytes:
    """Return the line by which a process reports its namespaces just before exec."""
    return _line(_RECEIPT, namespaces(folder))


def phases(marks_ns: Mapping[str, int]) -> bytes:
    """Return the line by which a process reports when its phases have ended (vmctl/phases.py)."""
    return _line(_PHASES, marks_ns)


def _line(begin: bytes, numbers: Mapping[str, int]) -> bytes:
    return begin + b" ".join(b"%s=%d" % (name.encode(), number) for name, number in numbers.items()) + b"\n"


def take_receipt(raw: bytes) -> tuple[dict[str, int], dict[str, int], bytes]:
    """Return the namespaces and the phases that a process has reported, {} if it has not, and the rest: its error."""
    found, rest = _taken(_RECEIPT, raw)
    return found, *_taken(_PHASES, rest)


def _taken(begin: bytes, raw: bytes) -> tuple[dict[str, int], bytes]:
    if not raw.startswith(begin):
        return {}, raw
    line, _, rest = raw.removeprefix(begin).partition(b"\n")
    pairs = (word.split("=") for word in line.decode("ascii").split())
    return {name: int(number) for name, number in pairs}, rest


def check_start(name: str, found: Mapping[str, int], wanted: int) -> None:
    """Raise VmctlError if a workload is not in new namespaces for the flags `wanted`, and in ours for the others."""
    folder = own_namespaces()
    try:
        ours = namespaces(folder)
    finally:
        os.close(folder)
    for kind, inode in found.items():
        if (inode != ours[kind]) != bool(wanted & _FLAGS[kind]):
            where = "a namespace of the host" if wanted & _FLAGS[kind] else "another namespace than asked for"
            raise VmctlError(f"{name} would run in {where}: {kind}", hint="`vmctl doctor` checks this host")


def check_joined(found: Mapping[str, int], recorded: Mapping[str, int], joined: int) -> None:
    """Raise VmctlError if a command is not in the namespaces of its instance that it was to join."""
    for kind, inode in recorded.items():
        if joined & _FLAGS.get(kind, 0) and found.get(kind) != inode:
            raise VmctlError(f"it would run outside of the instance, in another namespace: {kind}")


def describe(error: BaseException) -> bytes:
    """Return an error as bytes for the pipe to the parent."""
    if isinstance(error, OSError):
        text = f"{error.strerror} ({error.filename})" if error.filename else error.strerror or str(error)
    else:
        text = str(error) or type(error).__name__
    hint = advice(error) if isinstance(error, OSError) else getattr(error, "hint", "")
    return "\0".join((type(error).__name__, text, hint)).encode(errors="replace")


def revive(raw: bytes, name: str, failed: str = "could not be started") -> VmctlError:
    """Return the error that `describe` wrote, about instance `name`, to which `failed` happened.

    A process that is killed writes nothing.
    """
    if not raw:
        return VmctlError(f"{name} {failed}: the new process was killed", hint="`dmesg` may show why")
    kind, text, hint = raw.decode(errors="replace").split("\0")
    if kind in _KINDS:
        return _KINDS[kind](text, hint=hint)
    return VmctlError(f"{name} {failed}: {text}", hint=hint)
