"""Whether the volumes of a workload are available to a guest on this host."""

from __future__ import annotations

import os
from collections.abc import Iterator

from images.kernels import kernel as kernels
from images.kernels import modules
from vmctl.backend import Problem
from vmctl.errors import VmctlError
from vmctl.spec.workload import Workload
from vmctl.volumes import places
from vmm import domain, guest, volumes


def problems(work: Workload) -> Iterator[Problem]:
    """Yield each problem with a hint; changes nothing."""
    if not os.path.exists(volumes.PROGRAM):
        yield Problem(
            f"volumes of a guest need {volumes.PROGRAM}, which is not installed",
            "`vmctl doctor` shows how to install it; --mode container works without",
        )
    if len(work.volumes) > domain.VOLUMES_MAX:
        yield Problem(
            f"a guest can have {domain.VOLUMES_MAX} volumes, not {len(work.volumes)}", "mount one folder with all"
        )
    for volume in volumes.special(work):
        yield Problem(
            f"{volume.source} is a socket, a FIFO or a device of this kernel, and a guest has another one",
            "use --mode container",
        )
    for attempt in (places.check, _check_kernel):
        try:
            attempt(work)
        except VmctlError as error:
            yield Problem(str(error), error.hint)


def _check_kernel(work: Workload) -> None:
    """Raise NotFoundError if the kernel has no virtiofs."""
    modules.load_order(kernels.find(work.vm.kernel), guest.FOR_VOLUMES)
