"""The processes of a workload of a user without cgroups; they are stopped by SIGSTOP, which cannot be handled.

They are those in the pid namespace of the workload's first process, or whose root is in the workload's root
directory, and all their descendants.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from vmctl.linux import processes
from vmctl.named import NamedTuple


class Workload(NamedTuple):
    """A workload by its first process on the host and its root directory there."""

    pid: int
    root: str

    def stop(self, timeout_s: float) -> bool:
        """Stop all processes, also those that they create meanwhile; return False if one still runs in the end."""
        deadline = time.monotonic() + timeout_s
        while running := self._in_other_states("TtZX"):
            if time.monotonic() > deadline:
                return False
            for pid in running:
                processes.send(pid, processes.start_time(pid), signal.SIGSTOP)
            time.sleep(0.001)
        return True

    def resume(self) -> None:
        """Let all processes continue."""
        for pid in self._in_other_states("ZX"):
            processes.send(pid, processes.start_time(pid), signal.SIGCONT)

    def pids(self) -> list[int]:
        """Return the processes, also those that have ended and are not waited for."""
        return self._in_other_states("")

    def _in_other_states(self, states: str) -> list[int]:
        """Return the processes whose state (proc(5), stat) is not one of these letters."""
        found, parents, state = {self.pid}, dict[int, int](), dict[int, str]()
        own, theirs = _namespace("self"), _namespace(self.pid)
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError, IndexError):  # it has ended, or is not of this user
                fields = processes.fields(pid)
                state[pid], parents[pid] = fields[0], int(fields[1])
                inside = theirs != own and _namespace(pid) == theirs
                if inside or f"{os.readlink(f'/proc/{pid}/root')}/".startswith(f"{self.root}/"):
                    found.add(pid)
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(pid for pid in found if pid in state and state[pid] not in states)


def _namespace(pid: int | str) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""
