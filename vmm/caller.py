"""The part of a guest's recorder that ends QEMU when the command that runs the guest in the foreground is gone.

The kernel kills a container with its caller (PR_SET_PDEATHSIG). QEMU is not a child of its caller, so the recorder
waits for the end of the caller by a pidfd (pidfd_open(2)), which no other process can keep open as it could a pipe.

A caller may be killed at any moment of the start. Its child that starts QEMU has the instance's lock until it has
finished (vmm/launcher.py): so QEMU is looked for with that lock.
"""

from __future__ import annotations

import os
import select

from vmctl.named import NamedTuple

TYPE_CHECKING = False  # `typing` would be 1 MB more
if TYPE_CHECKING:
    from collections.abc import Collection

    from vmctl.attach.hub import Hub

_LOOK_MS = 50  # between two looks whether the lock is free


class Tied(NamedTuple):
    """The guest that ends with its caller."""

    folder: str  # of the instance, which is its lock
    pid_file: str  # of QEMU
    uuid: str  # of the machine


class Caller:
    """The command that has started a guest in the foreground."""

    def __init__(self, poller: select.poll, pidfd: int, guest: Tied) -> None:
        self._poller, self._pidfd, self._guest = poller, pidfd, guest
        self._gone, self._over = False, False
        poller.register(pidfd, select.POLLIN)

    def wait_ms(self) -> int | None:
        """Return how long to wait for events at most."""
        return _LOOK_MS if self._gone and not self._over else None

    def hang_up(self) -> None:
        """It has closed its terminal, or was killed."""
        self._gone = True

    def handle(self, ready: Collection[int], hub: Hub | None) -> bool:
        """Do what is due, after the hub; return True if the caller has gone and there will be no QEMU.

        What a caller has sent before its end counts, and is read a round later at the latest: that it has detached.
        """
        if hub is not None and hub.left:
            self._over = True
        elif self._gone and not self._over and (hub is None or not hub.has_owner()):
            return self._end()
        if self._pidfd in ready:
            self._poller.unregister(self._pidfd)
            self._gone = True
        return False

    def _end(self) -> bool:
        """Kill QEMU, unless a command has the lock, and return whether it did not run."""
        import fcntl

        from vmm import files, qemu

        folder, pid_file, uuid = self._guest
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # it has been removed
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if qemu.lock_holder(pid_file) is None and qemu.find(uuid) is None:
                return True
            self._over = True
            files.mark_killed(folder, killed=True)  # the guest cannot report this
            qemu.end(pid_file, uuid)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
        return False
