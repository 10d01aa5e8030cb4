"""The inside of the microVM: a small init and the programs it needs, packed into an initrd.

The interface between host and guest:
- virtio disks, identified by serial: `layer0` (lowest), `layer1`, ... are the image's EROFS files; `disk` is ext4, for
  the files that the workload writes; `seed` is the NoCloud ISO of vmm/seed.py, the guest's only configuration.
- virtio-serial ports with the prefix `org.vmctl.`: `marks`, `stdout`, `stderr` from the guest, `control` to the guest,
  and `stdin` to the guest in an attached run and for a workload with a terminal or an open input; `agent` in both
  directions.
- marks, one per line: `init RELEASE BOOT_ID UUID UPTIME` (see vmm/receipt.py and vmm/marks.py), `mounts`, `secrets` (if
  the workload has some: init waits for them), `seed`, `network`, `exec` (the command is executed), `ssh`, and at the
  end `exit CODE workload|signal|oom` or `error CODE TEXT` (nothing was started; CODE is 125, 126 or 127).
- control, one request per line: `signal NUMBER` for the workload's process, `resize COLUMNS LINES` for its terminal,
  `freeze TOKEN`, `thaw`, `poweroff`; `hold TOKEN`, and then `release`, or `adopt BYTES` and so many bytes, see
  vmm/saved/__init__.py; `secrets BYTES`, and then so many bytes in the form of `write_files` of user-data,
  see vmm/sender.py.
- agent: commands that are executed in the workload's root, see vmctl/attach/frames.py. The agent (program/agent.c) runs
  outside of that root, as root.
- SSH to root on port 22: the command is a line with the arguments of `launch`, quoted for a shell.
"""

from __future__ import annotations

import os

from images.kernels import initrd as archive
from images.kernels.kernel import Kernel
from vmctl import compiled
from vmm import pmem
from vmm.guest.sshd import sshd_files

# panic=-1: a guest that panics restarts at once; before that, pvpanic reports the panic to QEMU, which ends it. The
# crypto self-tests take 0.4 s of an emulated CPU. no_timer_check: the test fails on a busy host without KVM.
# Mitigations and KASLR keep their defaults.
KERNEL_ARGS = "console=ttyS0 quiet panic=-1 cryptomgr.notests no_timer_check"

# For a system: its fstab names disks that do not exist here, and the serial console is output only, so no login there.
SYSTEM_ARGS = "vmctl.system fstab=no systemd.getty_auto=no"

WAITS = "vmctl.template"  # init waits until the guest was saved

# In loading order: for every workload, for one with volumes, for one with a network, for all the rest.
_FOR_ALL = ("pvpanic_mmio", "virtio_pci", "virtio_console", "virtio_blk", "erofs", "overlay", "isofs")
FOR_VOLUMES = ("fuse", "virtiofs")
_LATER = ("virtio_net", "virtio_rng", "virtio_balloon")
_OPTIONAL = ("pvpanic_mmio",)  # without it, a guest that panics boots again

_FILES = {
    "init": ("init", 0o755),
    "prepare": ("prepare", 0o644),
    "files.awk": ("files.awk", 0o644),
    "provide": ("provide", 0o644),
    "launch": ("launch", 0o755),
    "enter": ("bin/enter", 0o755),
    "dax": ("bin/dax", 0o644),
    "hold": ("bin/hold", 0o755),
    "template": ("bin/template", 0o644),
    "volumes": ("bin/volumes", 0o644),
    "later": ("bin/later", 0o755),
    "messages": ("bin/messages", 0o755),
    "passwd": ("etc/passwd", 0o644),
    "shells": ("etc/shells", 0o644),
}


def kernel_args(
    layers: int,
    *,
    read_only: bool = False,
    terminal: tuple[int, int] | None = None,
    secrets: bool = False,
    live: bool = False,
    template: bool = False,
) -> str:
    """Return the kernel's command line for a guest with this number of layers; init fails if it finds fewer.

    `terminal` has the columns and lines of the workload's terminal, if it gets one. `secrets`: the guest has to ask for
    secrets. `live`: the kernel writes its messages to the console as they come (see vmm/guest/messages).
    `template`: the guest waits until it is saved (see vmm/guest/template).
    """
    size = f"vmctl.tty={terminal[0]}:{terminal[1]}" if terminal else ""
    saved = WAITS if template else ""
    words = ("vmctl.read_only" if read_only else "", size, "vmctl.secrets" if secrets else "", saved)
    first = KERNEL_ARGS.replace(" quiet", "") if live else KERNEL_ARGS
    return " ".join((first, f"vmctl.layers={layers}", *filter(None, words)))


def system_args(layers: int, uuid: str, *, volumes: bool = False, secrets: bool = False, live: bool = False) -> str:
    """Return the kernel's command line for a guest that boots a system; `uuid` becomes its machine-id."""
    own = f"{SYSTEM_ARGS}{' vmctl.volumes' if volumes else ''}"
    return f"{kernel_args(layers, secrets=secrets, live=live)} {own} systemd.machine_id={uuid.replace('-', '')}"


def initrd(kernel: Kernel, *, volumes: bool = False, dax: bool = False) -> str:
    """Return the path of the initrd for a kernel; it is built if it is missing.

    `volumes`: the guest has some. `dax`: layers of it are persistent memory.

    Raises UnavailableError if this host has no dropbear or no C compiler, NotFoundError if the kernel lacks a module.
    """
    here = os.path.dirname(__file__)
    own = [(os.path.join(here, source), path, mode) for source, (path, mode) in _FILES.items()]
    modules = (*(pmem.MODULES if dax else ()), *_FOR_ALL, *(FOR_VOLUMES if volumes else ()), *_LATER)
    return archive.build(kernel, [*own, (agent(), "bin/agent", 0o755), *sshd_files()], modules, _OPTIONAL)


def agent() -> str:
    """Return the path of the agent, a static program. Raises UnavailableError if it cannot be compiled."""
    return compiled.program("agent", os.path.join(os.path.dirname(__file__), "program"), "the agent of guests")
