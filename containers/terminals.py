"""Terminals from the container's devpts: tty(1) inside finds them, and no process inside has a descriptor of ours.

The new process opens the terminal when it is inside, and sends the master to its parent (SCM_RIGHTS, unix(7)): a path
below /proc/PID/root would be resolved by the host, while the workload can exchange what it leads to.
"""

from __future__ import annotations

import os
import socket

from containers import imagepath
from containers.launch import Streams
from vmctl.linux import terminal


class Channel:
    """The way of a master from the new process to its parent; a context manager that closes the parent's end."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def receive(self) -> int | None:
        """Return the master, None if the new process has ended without sending one."""
        self._there.close()
        _, fds, _, _ = socket.recv_fds(self._here, 1, 1)
        return fds[0] if fds else None

    def own_terminal(self, uid: int) -> Streams:
        """Open a terminal as the controlling one of this session, for a user, and send its master to the parent.

        Called inside. Raises OSError if /dev/pts is not a devpts file system.
        """
        # O_NONBLOCK: the workload may have put a FIFO there
        master = imagepath.reach("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        slave = terminal.open_pair(master)
        os.fchown(slave, uid, -1)
        terminal.make_controlling(slave)
        socket.send_fds(self._there, [b"t"], [master])
        os.close(master)
        return Streams(slave, slave, slave)

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self._here.close()
        self._there.close()
