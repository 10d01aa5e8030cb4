"""The inside of the microVM: a small init and what it needs, packed into an initrd.

What the host gives the guest, and what comes back:
- virtio disks, told apart by serial: `layer0` (lowest), `layer1`, ... are the image's EROFS files; `disk` is ext4, for
  what the workload writes; `seed` is a NoCloud ISO in the form vmm/seed.py writes, the guest's only configuration.
- virtio-serial ports, all named `org.vmctl.` and: `marks`, `stdout`, `stderr` from the guest; `control` to it; and for
  an attached run `stdin` to it.
- marks, a line each: `init`, `mounts`, `seed`, `network`, `exec` (the workload takes over), `ssh`, and as the last one
  `exit CODE workload|signal|oom` or `error CODE TEXT` (nothing was started; CODE is 125, 126 or 127).
- control, a line each: `signal NUMBER` for the workload's process, `poweroff`.
- SSH to root on port 22: the command is the line of words that `launch` takes, quoted for a shell.
"""

from __future__ import annotations

import os

from images.kernels import initrd as archive
from images.kernels.kernel import Kernel
from vmm.guest.sshd import sshd_files

# panic=-1: a guest that panics restarts at once, which for its domain is the end. The crypto self-tests take 0.4 s of
# an emulated CPU. no_timer_check: the test fails on a busy host without KVM. Mitigations and KASLR stay as they are.
KERNEL_ARGS = "console=ttyS0 quiet panic=-1 cryptomgr.notests no_timer_check"

# For a system: its fstab names disks that are not here, nobody can log in on the serial console, which is read only.
SYSTEM_ARGS = "vmctl.system fstab=no systemd.getty_auto=no"

# In the order of loading: for the workload, for a workload with a network, for later.
MODULES = (
    *("virtio_pci", "virtio_console", "virtio_blk", "erofs", "overlay", "isofs"),
    "virtio_net",
    *("virtio_rng", "virtio_balloon"),
)

_FILES = {
    "init": ("init", 0o755),
    "prepare": ("prepare", 0o644),
    "files.awk": ("files.awk", 0o644),
    "launch": ("launch", 0o755),
    "enter": ("bin/enter", 0o755),
    "later": ("bin/later", 0o755),
    "passwd": ("etc/passwd", 0o644),
    "shells": ("etc/shells", 0o644),
}


def kernel_args(layers: int) -> str:
    """Return the kernel's command line for a guest with so many layers; init refuses to go on with fewer."""
    return f"{KERNEL_ARGS} vmctl.layers={layers}"


def system_args(layers: int, uuid: str) -> str:
    """Return the kernel's command line for a guest that boots a system, which shall have a machine-id of its own."""
    return f"{kernel_args(layers)} {SYSTEM_ARGS} systemd.machine_id={uuid.replace('-', '')}"


def initrd(kernel: Kernel) -> str:
    """Return the path of the initrd for a kernel, built unless it is there.

    Raises UnavailableError where this host has no dropbear, NotFoundError where the kernel lacks a module.
    """
    here = os.path.dirname(__file__)
    own = [(os.path.join(here, source), path, mode) for source, (path, mode) in _FILES.items()]
    return archive.build(kernel, [*own, *sshd_files()], MODULES)
