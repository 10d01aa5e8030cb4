"""A terminal of a container's own devpts: tty(1) inside finds it, and nothing inside holds a descriptor of ours."""

from __future__ import annotations

import os

from containers.launch import Launch, Streams
from vmctl.linux import terminal


def open_terminal(launch: Launch, pid: int) -> tuple[int, str]:
    """Return a new terminal of the devpts of process `pid`: its master, and the slave's path inside."""
    root = f"/proc/{pid}/root"
    master, slave = terminal.open_pair(f"{root}/dev/pts")
    if launch.first_id is not None:  # it belongs to who made it: the host's root, whom nobody inside knows
        os.chown(root + slave, launch.first_id, -1)
    return master, slave


def own_terminal(path: str) -> Streams:
    """Make a terminal of this root's devpts that of a new session, whose leader this process becomes."""
    os.setsid()
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    terminal.make_controlling(fd)
    return Streams(fd, fd, fd)
