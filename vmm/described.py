"""What the hardware of a guest consists of, for `vmctl inspect`."""

from __future__ import annotations

import os
from typing import Any

from images.kernels import uncompressed
from vmm.domain import SLOW_IF_EMULATED, Machine, ports


def values(machine: Machine) -> dict[str, Any]:
    """Return firmware, kernel and its form, number of ports, layers read in place, and what the processor lacks."""
    form = None
    if machine.kernel:
        form = "uncompressed" if uncompressed.is_elf(machine.kernel) else "bzImage"
    return {
        "firmware": os.path.basename(machine.firmware).partition(".")[0] or "default",
        "kernel": machine.kernel or None,
        "kernel_form": form,
        "serial_ports": ports(machine),
        "layers_by_dax": sorted(dict(machine.dax)),
        "processor_without": list(SLOW_IF_EMULATED) if machine.accelerator != "kvm" else [],
    }
