"""How a guest comes up, and what its workload is.

direct: our kernel and our init, which runs the command as its child.
system: our kernel, and the init of the image's layers; cloud-init applies the seed and systemd runs the command.
disk:   the image is a whole disk, with a boot loader and a kernel of its own; then as system.
"""

from __future__ import annotations

import stat

from images.layer import lookup
from images.store.image import Image, Process, process
from vmctl.workload import Workload

DIRECT, SYSTEM, DISK = "direct", "system", "disk"

_INITS = ("/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd")
_CLOUD_INIT = "/usr/bin/cloud-init"


def kind(image: Image, work: Workload) -> str:
    """Return how the guest boots: as the workload says, else by what the image is.

    An image that names a command is made for that command, and one that names none, or an init, and brings systemd
    and cloud-init is a system. So it depends on the image alone whether `auto` boots it as one, not on the command
    of the workload.
    """
    if image.disk:
        return DISK
    if work.vm.boot != "auto":
        return work.vm.boot
    return DIRECT if _own_command(image) or lacks(image) else SYSTEM


def lacks(image: Image) -> str:
    """Return what an image lacks to be booted as a system, empty where it lacks nothing."""
    if not lookup.has_init(image):
        return "systemd"
    with lookup.View(image.layers) as view:
        program = view.find(_CLOUD_INIT)
    return "" if program and program.attributes.mode & stat.S_IXUSR else "cloud-init"


def main_process(image: Image, work: Workload) -> Process | None:
    """Return the workload's process, None where the system itself is the workload.

    Raises SpecError for a direct boot without a command.
    """
    if kind(image, work) == DIRECT or work.command or _own_command(image):
        return process(image, work)
    return None


def _own_command(image: Image) -> bool:
    """Return whether the image names a command that is not just its init."""
    words = (*image.config.entrypoint, *image.config.cmd)
    return bool(words) and words[0] not in _INITS
