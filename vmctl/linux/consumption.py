"""What processes have used so far: processor time and disk, from /proc (proc(5))."""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl.linux import kernelfile, processes
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_TIMES = slice(11, 15)  # utime, stime, cutime, cstime of /proc/PID/stat, counted from the state


def processor_s(pids: Iterable[int]) -> float:
    """Return the processor time of processes and of their children that have ended, in seconds; steps of 10 ms."""
    found = (processes.fields(pid)[_TIMES] for pid in pids)
    return sum(int(ticks) for times in found for ticks in times) * _TICK_S


def disk_bytes(pids: Iterable[int]) -> tuple[int, int] | None:
    """Return the bytes that running processes have read from disks and written to them, None if none can be read."""
    read = written = 0
    known = False
    for pid in pids:
        with suppress(OSError):  # it has ended, or belongs to somebody else
            lines = dict(line.split(": ") for line in kernelfile.read(f"/proc/{pid}/io").splitlines())
            read += int(lines["read_bytes"])
            written += int(lines["write_bytes"])
            known = True
    return (read, written) if known else None
