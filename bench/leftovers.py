"""What a killed worker leaves running: the processes that it started itself, such as a `vmctl exec`.

They are found by the sample's mark in their environment, which they inherited from the worker.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from vmctl import engine
from vmctl.errors import NotFoundError, VmctlError
from vmctl.instances import instance

_MARK = "VMCTL_BENCH_SAMPLE"
_GONE_S = 5.0


def marked(measurement: str, name: str) -> dict[str, str]:
    """Return the environment for the process that takes the sample `name` of a measurement."""
    return {**os.environ, _MARK: f"{measurement}/{name}"}


def end(measurement: str, name: str = "") -> set[str]:
    """Kill the processes of one sample, or of a whole measurement, wait for them, and return the samples' names."""
    wanted = f"{_MARK}={measurement}/{name}".encode()
    names: set[str] = set()
    deadline_s = time.monotonic() + _GONE_S
    while found := _running(wanted, exact=bool(name)):
        for pid, mark in found.items():
            names.add(mark.rpartition(b"/")[2].decode())
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline_s:  # it hangs in the kernel
            break
        time.sleep(0.01)
    return names


def remove(name: str) -> None:
    """Remove the instances called `name` or `name-...`. Raises VmctlError if one cannot be removed."""
    for found in instance.names():
        if found == name or found.startswith(f"{name}-"):
            try:
                engine.rm(found, force=True)
            except NotFoundError:
                continue
            except VmctlError as error:
                raise VmctlError(
                    f"the instance {found} could not be removed: {error}", hint=f"`vmctl rm -f {found}` tries again"
                ) from error


def _running(wanted: bytes, *, exact: bool) -> dict[int, bytes]:
    """Return the processes whose environment has this mark, by pid. A zombie has no environment."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
            for mark in file.read().split(b"\0"):
                if mark == wanted or (not exact and mark.startswith(wanted)):
                    found[int(entry)] = mark
    return found
