"""The processes of a container as `vmctl top NAME` lists them, read from the host's /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from vmctl.linux import kernelfile, processes
from vmctl.spec.units import format_size

_TICKS = os.sysconf("SC_CLK_TCK")
_NOBODY = "-"


def listing(pids: Iterable[int]) -> list[tuple[str, str, str, str, str]]:
    """Return the rows of HasUsage; pids and users are those inside."""
    rows = []
    for pid in pids:
        with suppress(OSError, IndexError, KeyError):  # it has ended
            rows.append(_row(pid))
    return sorted(rows, key=lambda row: int(row[0]))


def _row(pid: int) -> tuple[str, str, str, str, str]:
    status = dict(line.split(":\t", 1) for line in kernelfile.read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    times = processes.fields(pid)[11:13]
    seconds = sum(map(int, times)) // _TICKS
    inside = status["NSpid"].split()[-1]
    memory = int(status.get("VmRSS", "0").split()[0]) * 1024
    words = processes.command(pid) or [f"[{status['Name']}]"]
    uid = _uid_inside(pid, int(status["Uid"].split()[0]))
    return inside, uid, f"{seconds // 60}:{seconds % 60:02}", format_size(memory), " ".join(words)


def _uid_inside(pid: int, uid: int) -> str:
    """Return the id that a user has in the user namespace of a process (user_namespaces(7), uid_map).

    In our own namespace it is that id already, and uid_map refers to the namespace above it.
    """
    with suppress(OSError):
        if os.path.samefile(f"/proc/{pid}/ns/user", "/proc/self/ns/user"):
            return str(uid)
    for line in kernelfile.read(f"/proc/{pid}/uid_map").splitlines():
        first, outside, count = map(int, line.split())
        if outside <= uid < outside + count:
            return str(first + uid - outside)
    return _NOBODY
