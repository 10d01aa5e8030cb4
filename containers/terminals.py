"""Terminals from the container's devpts: tty(1) inside finds them, and no process inside has a descriptor of ours."""

from __future__ import annotations

import os

from containers.launch import Launch, Streams
from vmctl.linux import terminal


def open_terminal(launch: Launch, pid: int) -> tuple[int, str]:
    """Open a new terminal in the devpts of process `pid`; return the master, and the slave's path inside."""
    root = f"/proc/{pid}/root"
    master, slave = terminal.open_pair(f"{root}/dev/pts")
    if launch.first_id is not None:  # it belongs to the host's root, which does not exist inside
        os.chown(root + slave, launch.first_id, -1)
    return master, slave


def own_terminal(path: str) -> Streams:
    """Start a new session with a terminal of this root's devpts as its controlling terminal."""
    os.setsid()
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    terminal.make_controlling(fd)
    return Streams(fd, fd, fd)
