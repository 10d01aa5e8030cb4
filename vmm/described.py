"""What the hardware of a guest consists of, for `vmctl inspect`: recorded at the start, with the keys of JSON."""

from __future__ import annotations

import os
from typing import Any

from images.kernels import uncompressed
from vmctl.instances.instance import Instance
from vmm.domain import SLOW_IF_EMULATED, Machine, ports

_KEY = "machine"  # of the state


def record(inst: Instance, machine: Machine) -> None:
    """Record in the state what `of` returns."""
    direct = bool(machine.kernel)
    inst.state.own[_KEY] = {
        "firmware": os.path.basename(machine.firmware).partition(".")[0] or "seabios",
        "kernel": machine.kernel or None,
        "kernel_form": ("uncompressed" if uncompressed.is_elf(machine.kernel) else "bzImage") if direct else None,
        "serial_ports": ports(machine),
        "processor_without": list(SLOW_IF_EMULATED) if machine.accelerator != "kvm" else [],
    }


def of(inst: Instance) -> dict[str, Any]:
    """Return firmware, kernel and its form, number of serial ports, and features that the processor lacks."""
    found: dict[str, Any] = inst.state.own.get(_KEY, {})
    return found
