"""The limits of an instance: those that its workload asks for, and those that are in effect, read back after the start.

A backend puts the latter into `State.limits`, as the kernel or the hypervisor reports them; None means no limit.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import backends
from vmctl.backend import HasOomKills, Problem
from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from typing import Any

UNLIMITED = "the number of its processes is not limited: this user has no control group for it"
_CPUS = 0.011  # the kernel's smallest quota


def asked(work: Workload) -> dict[str, Any]:
    """Return the limits that a workload asks for, with the keys of `State.limits`; None for the default."""
    return {**work.resources._asdict(), "log_bytes": work.logs.size_bytes}


def effective(inst: Instance) -> dict[str, dict[str, Any]]:
    """Return what an instance can use at most, and the source of that: `{"cpus": {"value": 2, "source": "host"}}`.

    The source is `workload`, `default` of vmctl or of the mode, or `host`: no limit but what the host has.
    """
    whole = {"cpus": os.cpu_count(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}
    found = {}
    for name, wanted in inst.work.resources._asdict().items():
        value = inst.state.limits.get(name)
        source = "workload" if wanted is not None else "host" if value is None else "default"
        found[name] = {"value": whole.get(name) if value is None else value, "source": source}
    return found


def check(inst: Instance) -> None:
    """Raise VmctlError if a limit that the workload asks for is not in effect."""
    for name, wanted in inst.work.resources._asdict().items():
        if wanted is not None and not _holds(name, wanted, inst.state.limits.get(name)):
            from vmctl.spec.units import exact_size

            found, shown = inst.state.limits.get(name), exact_size if name.endswith("_bytes") else "{:g}".format
            raise VmctlError(
                f"{inst.name} asks for resources.{name.removesuffix('_bytes')} {shown(wanted)}, "
                f"but {'no limit' if found is None else shown(found)} is in effect",
                hint="leave the key out, or use another mode",
            )


def beyond_host(work: Workload) -> list[str]:
    """Return a warning if a workload asks for more processors than this process can use: it then gets these."""
    asked, here = work.resources.cpus or 0, len(os.sched_getaffinity(0))
    if asked <= here:
        return []
    number = "1 processor" if here == 1 else f"{here} processors"
    return [f"the workload has {number}, as many as this host, not {asked:g}"]


def disk_problem(size_bytes: int, least_bytes: int) -> Problem | None:
    """Return why a file of this size cannot be the writable layer, if so: tried with a file without a name."""
    if size_bytes < least_bytes:
        return Problem(f"resources.disk must be at least {least_bytes >> 20}M in this mode", "raise `resources.disk`")
    from vmctl import paths
    from vmctl.spec.units import format_size

    folder = paths.state_root()
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    with suppress(OSError):  # a file system without such files: then the start tries it
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(fd, size_bytes)
        except OSError as error:
            return Problem(
                f"resources.disk: the file system of {folder} cannot have a file of {format_size(size_bytes)}: "
                f"{error.strerror}",
                "lower `resources.disk`: the file is sparse, but it has that size",
            )
        finally:
            os.close(fd)
    return None


def oom_kills(inst: Instance) -> int | None:
    """Return how many processes were killed because memory ran out, None if the mode cannot count them."""
    with suppress(VmctlError, OSError):  # of a mode that is not installed, or the instance is being removed
        backend = backends.load(inst.state.mode)
        return backend.oom_kills(inst) if isinstance(backend, HasOomKills) else None
    return None


def oom_reporter(inst: Instance, kills: int | None) -> str | None:
    """Return who has reported that processes were killed: guest, if not all were counted by the host's kernel; or host.

    None if no process was killed.
    """
    if not kills:
        return None
    from vmctl.linux.cgroups import Cgroup

    return "guest" if kills > Cgroup(inst.cgroup).oom_kills() else "host"


def _holds(name: str, wanted: float, found: float | None) -> bool:
    """Compare a limit with what is in effect: sizes are rounded to pages or blocks, quotas to the kernel's smallest."""
    least = {"cpus": _CPUS, "pids": 1}.get(name, os.sysconf("SC_PAGE_SIZE"))
    return found is not None and abs(found - wanted) < least
