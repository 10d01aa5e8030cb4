"""What a worker that was killed has left running: the processes that it started itself, such as a `vmctl exec`.

Each has the sample's mark in its environment, which it has from the worker.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from vmctl import engine, instance
from vmctl.errors import NotFoundError, VmctlError

_MARK = "VMCTL_BENCH_SAMPLE"
_GONE_S = 5.0


def marked(measurement: str, name: str) -> dict[str, str]:
    """Return the environment for the process that takes one sample, `name`, of a measurement."""
    return {**os.environ, _MARK: f"{measurement}/{name}"}


def end(measurement: str, name: str = "") -> set[str]:
    """Kill what is left of one sample, or of all of a measurement, wait for its end and return the samples' names."""
    wanted = f"{_MARK}={measurement}/{name}".encode()
    names: set[str] = set()
    deadline_s = time.monotonic() + _GONE_S
    while found := _running(wanted, exact=bool(name)):
        for pid, mark in found.items():
            names.add(mark.rpartition(b"/")[2].decode())
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline_s:  # one that the kernel does not let go
            break
        time.sleep(0.01)
    return names


def remove(name: str) -> None:
    """Remove the instances that are called `name` or `name-...`. Raises VmctlError where one cannot be removed."""
    for found in instance.names():
        if found == name or found.startswith(f"{name}-"):
            try:
                engine.rm(found, force=True)
            except NotFoundError:
                continue
            except VmctlError as error:
                raise VmctlError(
                    f"the instance {found} is left behind: {error}", hint=f"vmctl rm -f {found}"
                ) from error


def _running(wanted: bytes, *, exact: bool) -> dict[int, bytes]:
    """Return the processes whose environment has this mark; one that has ended has no environment any more."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
            for mark in file.read().split(b"\0"):
                if mark == wanted or (not exact and mark.startswith(wanted)):
                    found[int(entry)] = mark
    return found
