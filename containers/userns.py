"""A user namespace: 0 to 65535 inside are a range of the host's ids that no other instance has.

So root inside is nobody outside: it has a root's powers over its own namespaces and files, and none over the host's.
See user_namespaces(7).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import instance, paths
from vmctl.errors import ConflictError, NotFoundError
from vmctl.instance import Instance
from vmctl.linux import kernelfile, syscalls
from vmctl.linux.locks import folder_locked
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

COUNT = 65536
# Here systemd's table of ids (UIDS-GIDS) has nothing: no login, no range of subuid(5), no container of nspawn.
FIRST, END = 0x70000000, 0x7FFD0000
_KEY = "first_id"  # in State.own


def first_id(inst: Instance) -> int | None:
    """Return which id of the host is 0 inside; None where the instance has the host's own ids."""
    return inst.state.own.get(_KEY)


def reserve(inst: Instance) -> int:
    """Return the first id of a range of the instance's own; repeatable. Raises ConflictError where all are taken.

    It is written in the instance's state and nowhere else, so it is free again as soon as the instance is gone.
    """
    with folder_locked(paths.instances_root()):
        own = first_id(inst) or lowest_free()
        inst.state.own[_KEY] = own
        inst.save()
    return own


def lowest_free() -> int:
    """Return the first id of a range that no instance has now. Raises ConflictError where all are taken."""
    taken = set(_taken())
    for number in range(FIRST, END, COUNT):
        if number not in taken:
            return number
    raise ConflictError("every range of user ids is in use", hint="`vmctl rm` instances you no longer need")


def _taken() -> Iterator[int | None]:
    for name in instance.names():
        with suppress(NotFoundError):  # removed since it was listed
            yield first_id(instance.load(name))


def mapping(first: int) -> str:
    """Return the line of uid_map and gid_map: where the ids begin inside, where outside, how many there are."""
    return f"0 {first} {COUNT}"


class Gate:
    """What holds the first process of a new user namespace until its parent has said which ids are which."""

    def __init__(self, mapping: str) -> None:
        self._mapping = mapping
        self._read, self._write = os.pipe()

    def wait(self) -> None:
        """Be held; for the child. Where the parent gave up, or was killed, so does the child."""
        os.close(self._write)
        if not os.read(self._read, 1):
            os._exit(125)
        os.close(self._read)

    def open(self, pid: int) -> None:
        """Map the ids of the child and let it go on; for the parent. Raises OSError, after the child's end."""
        try:
            for name in ("uid_map", "gid_map"):
                kernelfile.write(f"/proc/{pid}/{name}", self._mapping)
            os.write(self._write, b"m")
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        finally:
            os.close(self._read)
            os.close(self._write)


def inverse(first: int) -> str:
    """Return the line for a mount that shows what is in the range on the disk with the ids there are inside."""
    return f"{first} 0 {COUNT}"


@contextmanager
def example(mapping: str) -> Iterator[int]:
    """Lend a descriptor of a user namespace with this mapping, in which nobody lives. Raises OSError.

    The kernel takes a mapping for a mount from a namespace that has it, and this one can be had before the start.
    """
    gate = Gate(mapping)
    pid = syscalls.clone3(syscalls.CLONE_NEWUSER, exit_signal=signal.SIGCHLD)
    if pid == 0:
        _leave_after(gate)
    namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        gate.open(pid)
        os.waitpid(pid, 0)
        yield namespace
    finally:
        os.close(namespace)


def _leave_after(gate: Gate) -> NoReturn:
    try:
        gate.wait()
    finally:
        os._exit(0)
