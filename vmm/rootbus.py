"""The places of a guest's PCI devices: all are on the root bus of q35."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MANY_DISKS = 24  # the root bus has a slot for each of up to this many disks, next to the other devices
_SLOTS, _OTHERS = 29, 3  # of the root bus, and how many have devices that are neither disks nor network interfaces


def layers_max(nics: int, volumes: int = 0) -> int:
    """Return how many layers a guest can have: eight disks share a slot, three of which are not layers."""
    return (_SLOTS - _OTHERS - max(1, nics) - volumes) * 8 - 3


def place(devices: Element) -> Element:
    """Put every PCI device directly on q35's root bus.

    libvirt would give each device a PCIe root port (for hot-plug), which is a second device to find and set up. If an
    image has more layers than the bus has slots, eight disks share a slot, as the functions of one device.
    """
    tags = ("filesystem", "interface", "memballoon", "rng")
    single = [child for child in devices if (child.tag in tags or _is_virtio_serial(child)) and _is_there(child)]
    disks = [child for child in devices if child.tag == "disk"]
    beside = sum(device.tag in ("filesystem", "interface") for device in single)
    per_slot = 8 if are_many(len(disks), beside) else 1
    slots, slot = iter(range(2, 31)), 0  # 0 is the host bridge, 1 is left for a display, 31 is the chipset
    for number, disk in enumerate(disks):
        function = number % per_slot
        slot = slot if function else next(slots)
        disk.append(_address(slot, function, shared=per_slot > 1 and function == 0))
    for device in single:
        device.append(_address(next(slots), 0, shared=False))
    return devices


def are_many(disks: int, beside: int) -> bool:
    """Return whether disks have to share slots: `beside` network interfaces and volumes have one each."""
    return disks + max(0, beside - 1) > MANY_DISKS


def _is_virtio_serial(device: Element) -> bool:
    return device.tag == "controller" and device.get("type") == "virtio-serial"


def _is_there(device: Element) -> bool:
    return device.get("model") != "none"


def _address(slot: int, function: int, *, shared: bool) -> Element:
    from xml.etree.ElementTree import Element

    where = {"domain": "0x0000", "bus": "0x00", "slot": f"0x{slot:02x}", "function": f"0x{function:x}"}
    return Element("address", {"type": "pci", **where, **({"multifunction": "on"} if shared else {})})
