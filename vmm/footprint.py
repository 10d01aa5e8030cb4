"""Memory and disk usage of a running guest."""

from __future__ import annotations

from vmctl.backend import Footprint
from vmctl.footprint import helpers
from vmctl.instances.instance import Instance
from vmctl.linux import filetree, memory
from vmctl.linux.cgroups import Cgroup
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


_LAYER = ".erofs"  # end of its file's name


class Mapping(NamedTuple):
    """One mapping of a process."""

    access: str  # as in proc(5), such as rw-p
    size_bytes: int
    resident_bytes: int
    is_layer: bool


def footprint(inst: Instance) -> Footprint:
    """Return QEMU's memory, the size of the instance's files, and that of shared files: layers, kernel, initrd."""
    pss = memory.pss_by_role({"qemu": [inst.state.pid or 0], **helpers(inst.journal)})
    shared = tuple(inst.state.own.get("shared", ()))
    return Footprint(
        pss_bytes=sum(pss.values()) if "qemu" in pss else None,
        cgroup_bytes=Cgroup(inst.cgroup).memory_bytes(),
        disk_bytes=filetree.allocated_bytes(inst.directory),
        shared_disk_bytes=sum(map(filetree.allocated_bytes, shared)),
        pss_by_role=pss,
        vmm_bytes=_vmm_bytes(inst),
        shared_files=shared,
    )


def without_guest_bytes(smaps: str, guest_bytes: int) -> int | None:
    """Return the resident bytes of all mappings except the guest's memory, or None if that cannot be identified.

    Layers that the guest reads in place are its memory, too: QEMU maps their files.

    QEMU maps the guest's memory as one mapping, readable and writable, exactly as large as the guest's memory. QEMU's
    buffer for translated code can be larger, but it is executable. The kernel merges neighbours of the same kind into
    one mapping (mm/mmap.c, vma_merge), so the mapping can look larger than it is, never smaller.
    """
    mappings = list(_mappings(smaps))
    candidates = [found for found in mappings if found.access.startswith("rw-") and found.size_bytes >= guest_bytes]
    if not candidates:
        return None
    guest = min(candidates, key=lambda found: found.size_bytes)
    own = (found.resident_bytes for found in mappings if not found.is_layer)
    return sum(own) - guest.resident_bytes


def _vmm_bytes(inst: Instance) -> int | None:
    guest_bytes = inst.state.own.get("memory_bytes")
    if not guest_bytes or not inst.state.pid:
        return None
    try:
        with open(f"/proc/{inst.state.pid}/smaps", encoding="utf-8", errors="replace") as file:
            return without_guest_bytes(file.read(), guest_bytes)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _mappings(smaps: str) -> Iterator[Mapping]:
    """Yield the mappings in a text in the format of /proc/PID/smaps."""
    access, size_bytes, is_layer = "", 0, False
    for line in smaps.splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            access, is_layer = rest[:4], line.endswith(_LAYER)
        elif first == "Size:":
            size_bytes = int(rest.split()[0]) * 1024
        elif first == "Rss:":
            yield Mapping(access, size_bytes, int(rest.split()[0]) * 1024, is_layer)
