"""Memory and disk usage of a running container."""

from __future__ import annotations

from images.store import store
from vmctl.backend import Footprint
from vmctl.footprint import helpers
from vmctl.instances.instance import Instance
from vmctl.linux import filetree, memory
from vmctl.linux.cgroups import Cgroup
from vmctl.linux.stopped import Workload


def pids(inst: Instance, cgroup: Cgroup) -> list[int]:
    """Return the processes of a workload; a user without control groups finds them by their namespace."""
    if cgroup.folders or not inst.state.pid:
        return cgroup.pids()
    return Workload(inst.state.pid, inst.path("rootfs")).pids()


def footprint(inst: Instance) -> Footprint:
    """Return memory and disk usage in bytes: of its processes and helpers, its directory and its layers."""
    cgroup = Cgroup(inst.cgroup)
    pss = memory.pss_by_role({"workload": pids(inst, cgroup), **helpers(inst.journal)})
    layers = store.find(inst.image).stack
    if inst.state.snapshot is not None:
        from containers import kept

        layers += kept.of(inst)
    shared = tuple(layer.path for layer in layers)
    return Footprint(
        pss_bytes=sum(pss.values()) if pss else None,
        cgroup_bytes=cgroup.memory_bytes(),
        disk_bytes=filetree.allocated_bytes(inst.directory),
        shared_disk_bytes=sum(map(filetree.allocated_bytes, shared)),
        pss_by_role=pss,
        shared_files=shared,
    )
