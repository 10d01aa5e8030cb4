"""How a guest boots, and what its workload is.

direct: our kernel and our init, which runs the command as its child.
system: our kernel and the image's init; cloud-init applies the seed and systemd runs the command.
disk:   the image is a whole disk with its own boot loader and kernel; otherwise like system.
"""

from __future__ import annotations

import stat

from images.layer import lookup
from images.store.image import Image, Process, process
from vmctl.spec.workload import Workload

DIRECT, SYSTEM, DISK = "direct", "system", "disk"

_INITS = ("/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd")
_CLOUD_INIT = "/usr/bin/cloud-init"


def kind(image: Image, work: Workload) -> str:
    """Return how the guest boots: by `vm.boot` of the workload, or if that is `auto`, by the image.

    An image with a command is made to run that command. An image with systemd and cloud-init whose command is empty or
    an init is a system. So `auto` depends on the image alone, not on the workload's command.
    """
    if image.disk:
        return DISK
    if work.vm.boot != "auto":
        return work.vm.boot
    return DIRECT if _own_command(image) or lacks(image) else SYSTEM


def lacks(image: Image) -> str:
    """Return what an image lacks to be booted as a system, or "" if it lacks nothing."""
    if not lookup.has_init(image):
        return "systemd"
    with lookup.View(image.layers) as view:
        program = view.find(_CLOUD_INIT)
    return "" if program and program.attributes.mode & stat.S_IXUSR else "cloud-init"


def main_process(image: Image, work: Workload) -> Process | None:
    """Return the workload's process, or None if the system itself is the workload.

    Raises SpecError for a direct boot without a command.
    """
    if kind(image, work) == DIRECT or _own_command(image):
        return process(image, work)
    if work.command or work.entrypoint:  # systemd runs it: the image's entrypoint, an init, is not its program
        return process(image, work._replace(entrypoint=work.entrypoint or ()))
    return None


def _own_command(image: Image) -> bool:
    """Return whether the image has a command that is not its init."""
    words = (*image.config.entrypoint, *image.config.cmd)
    return bool(words) and words[0] not in _INITS
