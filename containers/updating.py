"""Change the limits of a running container."""

from __future__ import annotations

from vmctl.errors import StateError
from vmctl.instances.instance import Instance
from vmctl.linux.cgroups import Cgroup, Limits
from vmctl.named import TYPE_CHECKING
from vmctl.spec.units import format_size
from vmctl.spec.workload import Resources

if TYPE_CHECKING:
    from typing import Any


def update(inst: Instance, wanted: Resources) -> dict[str, Any]:
    """See HasUpdate. Raises StateError for less memory than is in use: the kernel would kill processes for it."""
    cgroup = Cgroup(inst.cgroup)
    limits = Limits(wanted.cpus, wanted.memory_bytes, wanted.pids)
    cgroup.check(limits)
    used_bytes = cgroup.kept_bytes()
    if wanted.memory_bytes is not None and wanted.memory_bytes < used_bytes:
        raise StateError(
            f"{inst.name} uses {format_size(used_bytes)} of memory, more than {format_size(wanted.memory_bytes)}",
            hint="a limit below that would kill its processes",
        )
    cgroup.set(limits)
    return cgroup.granted()._asdict()
