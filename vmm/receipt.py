"""Where a guest runs, as it reports it in each boot: kernel, boot id, and UUID of the machine.

The boot id (random(4)) is made by a kernel when it boots, so it differs from the host's. The UUID is the one that QEMU
was started with, read from the tables of its firmware. Our init reports it first; in a guest that boots from a whole
disk, our agent does, when its system has started it. What a guest reports after its workload has taken it over is only
about itself.
"""

from __future__ import annotations

import re
from typing import Any

from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import processes

WORDS = ("init", "system")  # marks with a report
_REPORT = re.compile(r"(?:init|system) ([!-~]{1,100}) ([0-9a-f-]{36}) ?([0-9a-f-]{36})?(?: [0-9.]{1,12})?", re.ASCII)


def reported(lines: list[str]) -> list[dict[str, str]]:
    """Return what the marks of a guest contain about each of its boots, the first one first."""
    first = next((word for word in WORDS if any(line.startswith(f"{word} ") for line in lines)), "")
    found = map(_REPORT.fullmatch, [line for line in lines if line.startswith(f"{first} ")])
    return [{"kernel": one[1], "boot_id": one[2], "machine": one[3] or ""} for one in found if one]


def check(inst: Instance, line: str) -> None:
    """Check the mark of a boot. Raises VmctlError if it is not one of a kernel other than ours, in this machine."""
    for one in reported([line]):
        if one["boot_id"] == processes.boot_id():
            raise VmctlError(f"the guest {inst.name} runs on the kernel of this host: {one['boot_id']} is its boot id")
        from vmm import domain

        # a guest that began with the memory of another one sees that one's machine
        wanted = inst.state.own.get("saved_machine") or domain.machine_uuid(inst.id)
        if one["machine"] not in ("", wanted):
            raise VmctlError(f"the guest of {inst.name} is the machine {one['machine']}, not {wanted}")


def check_command(inst: Instance, boot_id: bytes) -> None:
    """Check the boot id by which the agent of a guest reports where a command runs.

    Raises VmctlError if it is not that of a boot of this guest.
    """
    from vmm import marks

    found = boot_id.decode("ascii", errors="replace")
    known = [one["boot_id"] for one in reported(marks.lines(inst))]
    if known and found not in known:
        raise VmctlError(
            f"the command does not run in the guest {inst.name}: its kernel has the boot id {found[:36]!a}",
            hint=f"`vmctl inspect {inst.name}` shows that of the guest",
        )


def of(inst: Instance) -> dict[str, Any]:
    """Return the report of the last boot of a guest; {} before it has come to that."""
    from vmm import marks

    boots = reported(marks.lines(inst))
    return {**boots[-1], "boots": len(boots)} if boots else {}
