"""What one running instance takes: its memory when idle, its disk, and the memory that a guest reports itself."""

from __future__ import annotations

import time
from collections import deque

from bench.questions import Question, value
from vmctl.backend import Backend, Footprint
from vmctl.instances.instance import Instance
from vmctl.linux import memory
from vmctl.linux.cgroups import Cgroup

PERIOD_S = 0.05
FLAT_S = 0.2
FLAT_BYTES = 256 * 1024  # cgroup v1 counts in batches of 128 KiB per processor (memory.txt, section 5.5)
LIMIT_S = 5.0

_IDLE = "when the instance is idle: its cgroup's memory changed by at most 256 KiB in 200 ms"

QUESTIONS = (
    Question(
        "memory.pss_bytes",
        "memory, its processes (PSS)",
        "bytes",
        value("pss_bytes"),
        meaning=f"Sum of Pss (proc(5), smaps_rollup) over every process, {_IDLE}. It does not include kernel pages."
        " It includes pages that the guest's boot left free: a guest reports these to its host two seconds later.",
    ),
    *(
        Question(f"memory.pss_{role}_bytes", f"  {title}", "bytes", value(f"pss_{role}_bytes"), meaning=meaning)
        for role, title, meaning in (
            (
                "workload",
                "of which the workload",
                "Pss of the processes in the instance's cgroup. Processes inside a guest are not visible.",
            ),
            ("supervisor", "of which the supervisor", "Pss of the process that writes the workload's logs."),
            ("qemu", "of which QEMU", "Pss of QEMU, including the guest's memory."),
        )
    ),
    Question(
        "memory.vmm_bytes",
        "  QEMU without the guest's memory",
        "bytes",
        value("vmm_bytes"),
        meaning="Resident mappings of QEMU (proc(5), smaps) except the one that is the guest's memory.",
    ),
    Question(
        "memory.cgroup_bytes",
        "memory, charged to its cgroup",
        "bytes",
        value("cgroup_bytes"),
        meaning=f"memory.current (v2) or memory.usage_in_bytes (v1), {_IDLE}.",
    ),
    *(
        Question(f"memory.cgroup_{part}_bytes", f"  {title}", "bytes", value(f"cgroup_{part}_bytes"), meaning=meaning)
        for part, title, meaning in (
            ("anon", "anonymous", "memory.stat: anon (v2) or rss (v1)."),
            ("file", "files", "memory.stat: file (v2) or cache (v1): page cache that this cgroup read first."),
            ("kernel", "kernel", "memory.stat: kernel (v2) or memory.kmem.usage_in_bytes (v1)."),
        )
    ),
    Question(
        "memory.kernel_bytes",
        "memory, the host's kernel",
        "bytes",
        value("kernel_bytes"),
        hostwide=True,
        meaning="Change of slab, page tables, kernel stacks and per-cpu memory of the whole host (proc(5), meminfo),"
        " from before the start to idle. Everything else that the host does is included.",
    ),
)


def kernel_bytes() -> int:
    """Return the memory that the host's kernel uses for itself now, in bytes (see vmctl.linux.memory)."""
    return sum(memory.kernel().values())


def settle(inst: Instance, flat_s: float = FLAT_S) -> tuple[dict[str, float], dict[str, str]]:
    """Wait until an instance's memory has been flat for `flat_s`; return {"settled_s": how long that took} and texts.

    If it is not flat within LIMIT_S more, or if it has no cgroup, `settled_s` is absent and the texts give the reason.
    """
    group, began = Cgroup(inst.cgroup), time.monotonic()
    last: deque[int] = deque(maxlen=round(flat_s / PERIOD_S) + 1)
    while (passed_s := time.monotonic() - began) < LIMIT_S + flat_s:
        charged = group.memory_bytes()
        if charged is None:
            time.sleep(flat_s)
            return {}, {"settled": "unknown: the instance has no cgroup"}
        last.append(charged)
        if len(last) == last.maxlen and max(last) - min(last) <= FLAT_BYTES:
            return {"settled_s": passed_s}, {}
        time.sleep(PERIOD_S)
    spread = max(last) - min(last)
    return {}, {"settled": f"not within {LIMIT_S + flat_s:g} s: it still changed by {spread} bytes in {flat_s:g} s"}


def read(inst: Instance, found: Footprint) -> dict[str, float]:
    """Return the memory of a running instance in bytes, as the host reports it; unknown values are absent."""
    values: dict[str, int | None] = {
        "pss_bytes": found.pss_bytes,
        "vmm_bytes": found.vmm_bytes,
        "cgroup_bytes": found.cgroup_bytes,
        **{f"pss_{role}_bytes": size for role, size in found.pss_by_role.items()},
        **{f"cgroup_{part}_bytes": size for part, size in Cgroup(inst.cgroup).memory_split().items()},
    }
    return {name: size for name, size in values.items() if size is not None}


def disk(found: Footprint) -> dict[str, float]:
    """Return the allocated bytes of an instance: its own, and those it shares with others."""
    return {"disk_bytes": found.disk_bytes, "shared_disk_bytes": found.shared_disk_bytes}


def inside(inst: Instance, backend: Backend) -> dict[str, float]:
    """Return the memory that the instance's own kernel reports, in bytes; empty if it shares the host's kernel.

    This disturbs the instance: it runs a command in it.
    """
    if not backend.features.own_kernel:
        return {}
    from vmctl.programs import module, run

    argv = module("vmctl", "exec", "--no-stdin", inst.name, "--", "cat", "/proc/meminfo")
    code, text, _ = run(argv, check=False, timeout_s=60.0)
    found = memory.meminfo(text) if code == 0 else {}
    names = {"MemTotal": "inside_total_bytes", "MemAvailable": "inside_available_bytes"}
    return {names[key]: size for key, size in found.items() if key in names}
