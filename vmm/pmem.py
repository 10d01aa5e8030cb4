"""Large layers as persistent memory (virtio-pmem) that guests read in place (DAX), without a copy in their page cache.

QEMU maps the layer's file, so all guests of an image have the same pages of the host's cache. libvirt 9 cannot start
QEMU with such a device: it is made by arguments. The guest knows the device by its slot on the
root bus. Writing to it has no effect: QEMU has opened the file to read, and maps it so (docs/boot.md).

A system or a disk image attaches its layers as disks, as does a guest whose kernel lacks the modules.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from images.kernels.modules import available
from vmctl.programs import run
from vmm.domain import Machine
from vmm.rootbus import are_many

if TYPE_CHECKING:
    from images.kernels.kernel import Kernel

MODULES = ("virtio_pmem", "nd_pmem")
LEAST_BYTES = 16 << 20  # a smaller layer saves less memory than the modules and page tables of the device take
MOST = 8  # devices: the largest layers
ALIGNED_BYTES = 2 << 20  # the kernel maps such memory in sections of this size (linux/mmzone.h, SUBSECTION_SIZE)
_DEVICE = "virtio-pmem-pci"
_LAST_SLOT = 30  # of the root bus; domain.py fills it from below
_ROOM_BYTES = 1 << 30  # for the alignment of the devices' memory


def chosen(machine: Machine, kernel: Kernel, nics: int) -> tuple[tuple[int, int], ...]:
    """Return number and bytes of the layers that this guest gets as persistent memory, the largest first.

    Their files are extended to whole sections by a hole.
    """
    sizes = {number: os.path.getsize(path) for number, path in enumerate(machine.layers)}
    large = sorted((number for number in sizes if sizes[number] >= LEAST_BYTES), key=lambda number: -sizes[number])
    if not large or are_many(len(machine.layers) + 3, nics + len(machine.volumes)):
        return ()
    if not available(kernel, MODULES) or not _has_device(machine.emulator):
        return ()
    aligned = [number for number in large[:MOST] if _is_aligned(machine.layers[number])]
    return tuple((number, os.path.getsize(machine.layers[number])) for number in aligned)


def kernel_args(dax: tuple[tuple[int, int], ...]) -> str:
    """Return the words for the kernel's command line: LAYER:SLOT for each device, and a small buffer for old devices.

    The kernel would reserve 64 MiB for that buffer, because the address space now goes beyond 4 GiB.
    """
    places = ",".join(f"{number}:{_slot(index):02x}" for index, (number, _) in enumerate(dax))
    return f"vmctl.dax={places} swiotlb=512"


def arguments(machine: Machine) -> list[str]:
    """Return QEMU's arguments for the devices."""
    if not machine.dax:
        return []
    most_kib = (machine.memory_bytes + sum(size_bytes for _, size_bytes in machine.dax) + _ROOM_BYTES) >> 10
    words = ["-m", f"maxmem={most_kib}k"]
    for index, (number, size_bytes) in enumerate(machine.dax):
        file = machine.layers[number].replace(",", ",,")
        # without `rom` of QEMU 8.2: its default follows `readonly`, so no guest can write to a layer. `rom=off` is for
        # memory that is a private copy of a file which QEMU may only read (qapi/qom.json, MemoryBackendFileProperties)
        shared = "share=on,readonly=on"
        words += ["-object", f"memory-backend-file,id=dax{index},mem-path={file},size={size_bytes},{shared}"]
        words += ["-device", f"{_DEVICE},memdev=dax{index},bus=pcie.0,addr=0x{_slot(index):x}"]
    return words


def _slot(index: int) -> int:
    return _LAST_SLOT - index


def _has_device(emulator: str) -> bool:
    return run([emulator, "-device", f"{_DEVICE},help"], check=False)[0] == 0


def _is_aligned(path: str) -> bool:
    """Return whether a layer's size is a multiple of ALIGNED_BYTES, and make it one."""
    excess = os.path.getsize(path) % ALIGNED_BYTES
    try:
        if excess:
            os.truncate(path, os.path.getsize(path) + ALIGNED_BYTES - excess)
    except OSError:  # a store that cannot be written
        return False
    return True
