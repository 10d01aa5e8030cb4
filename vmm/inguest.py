"""What happens inside a guest at its start, for `vmctl up --explain`: the steps of its init (vmm/guest/init)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from images.store.image import Image
from vmctl.net import Link
from vmctl.spec.workload import Workload
from vmctl.steps import Step
from vmm import boot

_AWAITED = "cloud-init status --wait --long"
_SHOWN = 10  # layers with a line


def steps(work: Workload, image: Image, kind: str, links: Sequence[Link]) -> Iterator[Step]:
    """Yield the steps in their order."""
    for step in _all(work, image, kind, links):
        yield step._replace(place="guest")
    if kind != boot.DIRECT:
        why = "`up` waits until it has finished; if it has errors, the start fails"
        yield Step("cloud-init", _AWAITED, why, "cloud-init", place="guest")


def _all(work: Workload, image: Image, kind: str, links: Sequence[Link]) -> Iterator[Step]:
    if kind == boot.DISK:
        yield Step("boot loader", "", "of the disk: it loads the image's own kernel", "firmware")
        return
    yield Step("kernel", "", "the firmware copies kernel and initrd to memory: there is no boot loader", "firmware")
    why = "PID 1 is a script in the initrd; it loads the drivers that it needs"
    yield Step("init", "mount -t proc proc /proc", why, "kernel")
    yield Step("layers", _layers(len(image.stack)), "the files and the overlay of a container", "layers")
    if kind == boot.SYSTEM:
        yield Step("switch_root", "switch_root /image /sbin/init", "PID 1 is the image's init from here on", "system")
        return
    why = "init writes host name, files and the script of the workload from it"
    yield Step("seed", f"mount -t iso9660 -o ro {_disk(len(image.stack))} /seed", why, "settings")
    for link in links:
        raw = f"ip address add {link.address}/{link.prefix} dev {link.inside}"
        raw += f"\nip route add default via {link.gateway}" if link.gateway else ""
        yield Step("network", raw, "the other end of its cable is the tap device", "network")
    main = boot.main_process(image, work)
    raw = f"chroot /image {shlex.join(main.argv)}" if main else ""
    yield Step("workload", raw, "a child of init, in its own cgroup; init reports how it ends", "exec")


def _layers(count: int) -> str:
    """Return the mounts; init finds the disks by their serial numbers."""
    shown = range(min(count, _SHOWN))
    lines = [f"mount -t erofs -o ro {_disk(number)} /layers/{number}" for number in shown]
    lines.append(f"mount -t ext4 -o noatime {_disk(count + 1)} /disk")
    lower = ":".join(f"/layers/{number}" for number in reversed(range(count)))
    options = f"lowerdir={lower},upperdir=/disk/upper,workdir=/disk/work,redirect_dir=off,metacopy=off"
    return "\n".join([*lines, f"mount -t overlay -o {options} overlayroot /image"])


def _disk(number: int) -> str:
    """Return the device of a disk in the order of the machine, as long as letters suffice."""
    return f"/dev/vd{chr(ord('a') + number)}" if number < 26 else "/dev/vdX"
