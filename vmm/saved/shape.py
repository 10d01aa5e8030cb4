"""The shape of a saved guest: what a guest that is to go on from it must have in the same way, read from domain XML.

The state of the devices fits only the same devices at the same addresses, in the same QEMU, on processors with the same
features. Paths, names and addresses may differ.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from vmm.domain import QEMU_NAMESPACE

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_OWN = ("name", "uuid", "os", "seclabel", f"{{{QEMU_NAMESPACE}}}commandline", f"{{{QEMU_NAMESPACE}}}capabilities")
_FLAGS = ("vendor_id", "model name", "stepping", "microcode", "flags")  # of /proc/cpuinfo


class Devices(NamedTuple):
    """What the domain XML of a guest shows."""

    digest: str  # of everything that has to be the same
    macs: tuple[str, ...]  # of its interfaces, in their order
    stdin: bool  # whether there is a port for the standard input of the workload
    balloon: bool
    machine: str  # UUID


def of(xml: str) -> Devices:
    """Return the devices of a domain."""
    from hashlib import sha256
    from xml.etree import ElementTree

    root = ElementTree.fromstring(xml)
    macs = tuple(element.get("address", "") for element in root.iterfind("./devices/interface/mac"))
    names = {element.get("name", "") for element in root.iterfind("./devices/channel/target")}
    balloon = root.find("./devices/memballoon")
    machine = root.findtext("uuid") or ""
    for child in [child for child in root if child.tag in _OWN]:
        root.remove(child)
    for element in root.iter():
        element.text = (element.text or "").strip()
        element.tail = None
        _forget_places(element)
    return Devices(
        digest=sha256(ElementTree.tostring(root)).hexdigest(),
        macs=macs,
        stdin=any(name.endswith(".stdin") for name in names),
        balloon=balloon is None or balloon.get("model") != "none",
        machine=machine,
    )


def _forget_places(element: Element) -> None:
    if element.tag in ("source", "mac"):
        element.attrib.clear()
    elif element.tag == "target":
        element.attrib.pop("managed", None)
        if element.get("bus") is None and element.get("type") is None:  # the tap of an interface
            element.attrib.pop("dev", None)


def host(emulator: str, accelerator: str) -> dict[str, str]:
    """Return what has to be the same on this host: QEMU, processor, and version of vmctl, each as a text.

    Two builds of QEMU may have the same version, so its file counts. Under emulation the processor is QEMU's, but its
    features depend on what the host has.
    """
    from vmctl import __version__

    status = os.stat(emulator)
    return {
        "QEMU": f"{emulator} {status.st_size} {status.st_mtime_ns}",
        "processor": f"{accelerator} {_processor()}",
        "version of vmctl": __version__,
    }


def _processor() -> str:
    from hashlib import sha256

    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        first = file.read().partition("\n\n")[0]
    found: list[str] = [line for line in first.splitlines() if line.partition("\t")[0].strip(" :") in _FLAGS]
    return sha256("\n".join(found).encode()).hexdigest()[:16]


def differences(saved: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    """Return the names of what is not the same as it was."""
    return [name for name, value in now.items() if saved.get(name) != value]
