"""A cloud image made for a test: the image `debian` on a disk with its own partition, boot loader, kernel and initrd.

The disk's initrd writes a line to the console, because our init would boot the guest too.
"""

import os
import shutil

from images.kernels import initrd, kernel, moduledisk
from images.layer import mounts
from vmctl.linux.loops import loop_device
from vmctl.programs import run

PARTITION_AT = 1 << 20
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
while read -r module; do insmod "$module"; done </lib/modules/vmctl.order
mount -t devtmpfs dev /dev
mkdir /disk
until device=$(findfs LABEL=cloudimg); do sleep 0.05; done
echo "the disk's own initrd found $device"
mount -t ext4 "$device" /disk
exec /bin/busybox switch_root /disk /sbin/init
"""
EXTLINUX = """default linux
label linux
  kernel /boot/vmlinuz
  initrd /boot/initrd
  append console=ttyS0 quiet root=LABEL=cloudimg
"""


def make(folder, image, size_mib):
    """Return the path of a qcow2 file."""
    raw, qcow2, root = (os.path.join(folder, name) for name in ("disk.raw", "disk.qcow2", "root"))
    run(["truncate", "-s", f"{size_mib}M", raw])
    run(["sfdisk", "-q", raw], stdin=f"start={PARTITION_AT // 512}, type=83, bootable\n".encode())
    os.mkdir(root)
    mounted = list(_mounted(folder, image, root))
    try:
        # 64-bit block numbers: extlinux does not know them
        options = ["-O", "^64bit", "-E", f"offset={PARTITION_AT}", "-L", "cloudimg", "-d", root]
        run(["mke2fs", "-q", "-F", "-t", "ext4", *options, raw, f"{size_mib - 2}M"], timeout_s=120)
    finally:
        for place in reversed(mounted):
            run(["umount", place])
    with open("/usr/lib/EXTLINUX/mbr.bin", "rb") as source, open(raw, "r+b") as target:
        target.write(source.read())
    with loop_device(raw, offset=PARTITION_AT, writable=True) as device:
        run(["mount", device, root])
        try:
            run(["extlinux", "--install", os.path.join(root, "boot/extlinux")])
        finally:
            run(["umount", root])
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2], timeout_s=120)
    os.unlink(raw)
    return qcow2


def _mounted(folder, image, root):
    """Yield what has been mounted to have the layers, the kernel and its modules in one folder."""
    places = []
    own = kernel.find("debian")
    for number, path in enumerate([*reversed([layer.path for layer in image.layers]), moduledisk.build(own)]):
        places.append(os.path.join(folder, f"layer{number}"))
        os.mkdir(places[-1])
        mounts.mount_erofs(path, places[-1])
        yield places[-1]
    top = os.path.join(folder, "top")
    _boot_files(top, own)
    run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={':'.join([top, *places])}", "overlay", root])
    yield root


def _boot_files(top, own):
    boot = os.path.join(top, "boot")
    os.makedirs(os.path.join(boot, "extlinux"))
    init = os.path.join(top, "..", "init")
    for path, text in ((init, INIT), (os.path.join(boot, "extlinux/extlinux.conf"), EXTLINUX)):
        with open(path, "w") as file:
            file.write(text)
    archive = initrd.build(own, [(os.path.abspath(init), "init", 0o755)], ["virtio_pci", "virtio_blk"])
    shutil.copyfile(archive, os.path.join(boot, "initrd"))
    shutil.copyfile(own.vmlinuz, os.path.join(boot, "vmlinuz"))
