"""Some instances of one mode at the same time: what each takes, by three ways to count, and how long its start took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from bench.labs.lab import Samples
from bench.probes import crowd
from vmctl import backends
from vmctl.backend import HasUsage
from vmctl.errors import VmctlError
from vmctl.footprint import footprint, helpers
from vmctl.instances import instance
from vmctl.instances.instance import Instance
from vmctl.linux import memory
from vmctl.linux.cgroups import Cgroup
from vmctl.spec.workload import Workload


def measure(works: Sequence[Workload], mode: str, options: Mapping[str, str]) -> dict[str, Samples]:
    """Start instances one after the other and remove them; return by name what was measured after each start.

    Raises VmctlError.
    """
    start_s, pss, rss, kernel = [], [], [], []
    free = [float(crowd.host_memory().available)]
    with ExitStack() as stack:
        for work in works:
            stack.enter_context(crowd.removed([work.name]))
            started = crowd.start(work, mode, options)
            if (took_s := started.start_s()) is not None:
                start_s.append(took_s)
            free.append(float(crowd.host_memory().available))
        for work in works:  # only now: what they share is divided by all of them
            inst = instance.load(work.name)
            pss.append(float(footprint(inst).pss_bytes or 0))
            rss.append(float(_resident_bytes(inst)))
            kernel.append(float(_kernel_bytes(inst)))
    found = {"start": ("s", start_s), "PSS": ("bytes", pss), "RSS": ("bytes", rss), "kernel memory": ("bytes", kernel)}
    found["memory available here"] = ("bytes", free)
    return {name: Samples(unit, tuple(values)) for name, (unit, values) in found.items()}


def _resident_bytes(inst: Instance) -> int:
    """Return the sum of VmRSS (proc(5), status) of the processes of an instance and its helpers."""
    pids = {*backends.ability(backends.load(inst.state.mode), HasUsage).processes(inst)}
    pids.update(*helpers(inst.journal).values())
    total = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            total += memory.meminfo(file.read()).get("VmRSS", 0)
    return total


def _kernel_bytes(inst: Instance) -> int:
    """Return the memory of the kernel that is charged to the control group of an instance."""
    with suppress(OSError, VmctlError):
        return Cgroup(inst.cgroup).memory_split().get("kernel") or 0
    return 0
