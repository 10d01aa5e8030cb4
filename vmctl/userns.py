"""User namespaces: ids 0 to 65535 inside are a range of the host's ids that no other instance has.

So root inside is an unprivileged user outside: it has root's privileges in its own namespaces, none on the host.
See user_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from vmctl import ids
from vmctl.instances.instance import Instance
from vmctl.light import signal
from vmctl.linux import kernelfile, syscalls, usernamespace

_KEY = "first_id"  # in State.own


def first_id(inst: Instance) -> int | None:
    """Return the host's id that is 0 inside, or None if the instance has the host's ids."""
    return inst.state.own.get(_KEY)


def reserve(inst: Instance) -> int:
    """Reserve a range for the instance and return its first id; repeatable. Raises ConflictError if all are taken.

    An ordinary user has only one range, that of the user's own namespace, which begins at 0.
    """
    own = ids.take(inst, first_id(inst)) if usernamespace.is_host_root() else 0
    inst.state.own[_KEY] = own
    return own


def mapping(first: int) -> str:
    """Return the content of uid_map and gid_map; in a line: first id inside, first id outside, count."""
    return f"0 {first} {ids.COUNT}" if usernamespace.is_host_root() else usernamespace.same_ids()


class MappingBarrier:
    """Makes the first process of a new user namespace wait until its parent has written the id mapping."""

    def __init__(self, mapping: str) -> None:
        self._mapping = mapping
        self._read, self._write = os.pipe()

    def wait(self) -> None:
        """Wait, in the child. The child exits if the parent fails or is killed."""
        os.close(self._write)
        if not os.read(self._read, 1):
            os._exit(125)
        os.close(self._read)

    def release(self, pid: int) -> None:
        """Map the ids of the child and let it continue, in the parent. On OSError it ends the child first."""
        try:
            _write_mapping(pid, self._mapping)
            os.write(self._write, b"m")
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        finally:
            os.close(self._read)
            os.close(self._write)


def inverse_mapping(first: int) -> str:
    """Return the mapping for a mount that shows files owned by the range with the ids inside."""
    return f"{first} 0 {ids.COUNT}"


@contextmanager
def namespace_with(mapping: str) -> Iterator[int]:
    """Yield a descriptor of a user namespace with this mapping and without processes. Raises OSError.

    The kernel takes the mapping of a mount from a namespace; this one exists before the instance is started.
    """
    pid = syscalls.new_user_namespace()
    try:
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _write_mapping(pid, mapping)
            yield namespace
        finally:
            os.close(namespace)
    finally:
        os.waitpid(pid, 0)


def _write_mapping(pid: int, mapping: str) -> None:
    for name in ("uid_map", "gid_map"):
        kernelfile.write(f"/proc/{pid}/{name}", mapping)
