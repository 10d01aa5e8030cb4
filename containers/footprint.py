"""What a running container takes of the host."""

from __future__ import annotations

import os

from images import store
from vmctl.backend import Footprint
from vmctl.host import disk, processes
from vmctl.host.cgroups import Cgroup
from vmctl.instance import Instance


def footprint(inst: Instance) -> Footprint:
    """Return memory and disk in bytes: its processes and supervisor, the writable layer and the files."""
    cgroup = Cgroup(inst.cgroup)
    pids = [*cgroup.pids(), *([inst.state.keeper_pid] if inst.state.keeper_pid else [])]
    image = store.find(inst.state.image_digest or inst.work.image)
    shared = sum(os.stat(layer.path).st_blocks * 512 for layer in image.layers)
    return Footprint(
        pss_bytes=sum(processes.pss_bytes(pid) or 0 for pid in pids),
        cgroup_bytes=cgroup.memory_bytes(),
        disk_bytes=disk.allocated_bytes(inst.directory),
        shared_disk_bytes=shared,
    )
