"""The memory of processes and of the kernel in bytes, as reported in /proc (proc(5))."""

from __future__ import annotations

from vmctl.linux import processes
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


# memory of the kernel itself, used on behalf of processes, mounts, cgroups and guests
KERNEL = ("Slab", "PageTables", "SecPageTables", "KernelStack", "Percpu")


def meminfo(text: str) -> dict[str, int]:
    """Return the sizes in a text in the format of /proc/meminfo; lines without a size are left out."""
    fields = (line.split() for line in text.splitlines())
    return {one[0].rstrip(":"): int(one[1]) * 1024 for one in fields if len(one) == 3 and one[2] == "kB"}


def kernel() -> dict[str, int]:
    """Return the memory this host's kernel uses for itself now; an older kernel does not report all of KERNEL."""
    with open("/proc/meminfo", encoding="ascii") as file:
        found = meminfo(file.read())
    return {name: found[name] for name in KERNEL if name in found}


def pss_by_role(pids: Mapping[str, Iterable[int]]) -> dict[str, int]:
    """Return the proportional set size of the processes of each role; a role is absent if none can be read."""
    found = {role: [processes.pss_bytes(pid) for pid in group] for role, group in pids.items()}
    read = {role: [size for size in sizes if size is not None] for role, sizes in found.items()}
    return {role: sum(sizes) for role, sizes in read.items() if sizes}
