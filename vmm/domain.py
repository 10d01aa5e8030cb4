"""The libvirt domain XML of a guest, built from one value by a pure function.

See https://libvirt.org/formatdomain.html for each element. Devices that the guest does not need are left out: each one
costs time in the firmware and again in the kernel.
"""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, NamedTuple

from vmm import rootbus

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
KIB = 1024
VOLUMES_MAX = 16  # each has a slot
SLOW_IF_EMULATED = ("erms", "fsrm")  # with them, guests copy by an instruction that TCG translates byte by byte
_RAM = "vmctl.ram"  # QEMU's name for the memory of a guest that begins with a saved one's


class Nic(NamedTuple):
    """A network interface of the guest and the tap device it is connected to."""

    tap: str
    mac: str
    mtu: int = 1500  # of the network, which the guest's driver gets


class Machine(NamedTuple):
    """Everything that a domain consists of; all paths are absolute."""

    name: str
    uuid: str
    accelerator: str  # kvm | tcg
    emulator: str
    vcpus: int
    memory_bytes: int
    layers: tuple[str, ...]  # lowest first
    disk: str  # the writable disk: an ext4 file system, or for a disk image a qcow2 overlay over it
    seed: str
    console: str  # path of its FIFOs, without .in and .out
    outputs: tuple[tuple[str, str], ...]  # (port name, file) for each stream from the guest
    control: tuple[str, str]  # (port name, FIFO)
    uid: int | None = 0  # QEMU runs as this user of the host; None: as the one who starts it
    stdin: tuple[str, str] | None = None  # (port name, unix socket)
    agent: tuple[str, str] | None = None  # the same; None for a guest without our agent
    nics: tuple[Nic, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()  # (tag, unix socket of the file server)
    kernel: str = ""  # empty: the firmware boots the disk
    initrd: str = ""
    cmdline: str = ""
    modules: str = ""  # disk with the kernel's modules, for a guest that boots a system from layers
    firmware: str = ""  # empty: the one that QEMU takes by default
    balloon: bool = True  # without one, memory that the guest frees is not given back, but it can be saved: vmm/saved/
    ram: str = ""  # a saved guest's memory, with which this one begins; it has neither kernel nor initrd then
    resumes: bool = False  # its memory and its devices' state come from what was saved when it was suspended
    dax: tuple[tuple[int, int], ...] = ()  # number and bytes of the layers that are memory, not disks: vmm/pmem.py


def machine_uuid(instance_id: str) -> str:
    """Return the UUID of an instance's domain. It is the same at each start: the guest's machine-id depends on it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"vmctl-{instance_id}"))


def vcpus(cpus: float | None) -> int:
    """Return the number of virtual CPUs for a limit of `cpus`; the cgroup's quota limits the fraction."""
    return max(1, math.ceil(cpus or 1))


def ports(machine: Machine) -> int:
    """Return how many virtio-serial ports the guest has: each takes queues and time in its kernel, and QEMU makes 31.

    The first one is reserved for a console, which no guest of ours has.
    """
    return 1 + len(machine.outputs) + sum(bool(port) for port in (machine.control, machine.agent, machine.stdin))


def domain_xml(machine: Machine) -> str:
    """Return the domain XML that starts `machine`."""
    from xml.etree import ElementTree

    root = ElementTree.Element("domain", {"type": "kvm" if machine.accelerator == "kvm" else "qemu"})
    _text(root, "name", machine.name)
    _text(root, "uuid", machine.uuid)
    _text(root, "memory", str(math.ceil(machine.memory_bytes / KIB)), unit="KiB")
    if machine.volumes:
        root.append(_shared_memory())
    _text(root, "vcpu", str(machine.vcpus))
    root.extend([_os(machine), _features(), _cpu(machine), _clock()])
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(root, event, action)
    root.append(_devices(machine))
    root.append(_security_label(machine.uid))
    root.extend([_qemu_arguments(machine), _qemu_capabilities()])
    ElementTree.register_namespace("qemu", QEMU_NAMESPACE)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _shared_memory() -> Element:
    """Memory that the file servers of volumes map too: they read the guest's requests in it (vhost-user)."""
    element = _element("memoryBacking")
    element.extend([_element("source", type="memfd"), _element("access", mode="shared")])
    return element


def _os(machine: Machine) -> Element:
    element = _element("os")
    _text(element, "type", "hvm", arch="x86_64", machine="q35")
    if machine.ram:  # it does not boot
        return element
    if not machine.kernel:
        element.append(_element("bios", useserial="yes"))  # messages of the firmware about the disk
        return element
    if machine.firmware:
        _text(element, "loader", machine.firmware, type="rom")
    _text(element, "kernel", machine.kernel)
    _text(element, "initrd", machine.initrd)
    _text(element, "cmdline", machine.cmdline)
    return element


def _security_label(uid: int | None) -> Element:
    """Run QEMU as this user and group, and do not change the owners of files: instances share some of them."""
    if uid is None:  # nothing is changed, not the groups either: one of them may open /dev/kvm
        return _element("seclabel", type="none", model="dac")
    label = _element("seclabel", type="static", model="dac", relabel="no")
    _text(label, "label", f"+{uid}:+{uid}")
    return label


def _features() -> Element:
    element = _element("features")
    element.extend([_element("acpi"), _element("apic")])
    return element


def _cpu(machine: Machine) -> Element:
    """check='none': no CPU feature is required, so libvirt does not have to compare any."""
    if machine.accelerator == "kvm":
        return _element("cpu", mode="host-passthrough", check="none")
    element = _element("cpu", mode="maximum", check="none")
    element.extend(_element("feature", policy="disable", name=name) for name in SLOW_IF_EMULATED)
    return element


def _clock() -> Element:
    element = _element("clock", offset="utc")
    element.append(_element("timer", name="hpet", present="no"))
    return element


def _devices(machine: Machine) -> Element:
    element = _element("devices")
    _text(element, "emulator", machine.emulator)
    element.extend(_disks(machine))
    element.append(_element("controller", type="usb", model="none"))
    element.append(_element("controller", type="virtio-serial", index="0", ports=str(ports(machine))))
    element.extend(_volume(tag, path) for tag, path in machine.volumes)
    element.extend(map(_interface, machine.nics))
    element.append(_console(machine.console))
    element.extend(_output(name, path) for name, path in machine.outputs)
    element.append(_fifo(*machine.control))
    element.extend(_socket(*port) for port in (machine.agent, machine.stdin) if port)
    element.extend([_balloon(machine), _rng(), _element("panic", model="isa")])
    return rootbus.place(element)


def _disks(machine: Machine) -> list[Element]:
    """Return the disks; the guest identifies them by serial, never by order."""
    layers = (one for one in enumerate(machine.layers) if one[0] not in dict(machine.dax))
    files = [(f"layer{number}", path) for number, path in layers]
    files += [("modules", machine.modules)] if machine.modules else []
    files += [("seed", machine.seed), ("disk", machine.disk)]
    disks = [_disk(number, serial, path) for number, (serial, path) in enumerate(files)]
    if not (machine.kernel or machine.ram):
        _boot_from(disks[-1])
    return disks


def _disk(number: int, serial: str, path: str) -> Element:
    element = _element("disk", type="file", device="disk")
    driver = _element("driver", name="qemu", type="raw")
    element.extend([driver, _element("source", file=path), _element("target", dev=_disk_name(number), bus="virtio")])
    if serial == "disk":
        driver.set("discard", "unmap")  # blocks that the guest trims are freed on the host
        driver.set("error_policy", "report")  # a full host disk is an error in the guest; QEMU would stop it silently
    else:
        element.append(_element("readonly"))
    _text(element, "serial", serial)
    return element


def _boot_from(disk: Element) -> None:
    """Make the firmware boot from this disk only."""
    disk[0].set("type", "qcow2")
    disk.append(_element("boot", order="1"))


def _disk_name(number: int) -> str:
    """Return vda ... vdz, vdaa ...: bijective base 26, like the kernel's names."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"vd{letters}"


def _interface(nic: Nic) -> Element:
    """managed='no': the tap exists already, with an owner and on a bridge; libvirt only opens it."""
    element = _element("interface", type="ethernet")
    element.append(_element("mac", address=nic.mac))
    element.append(_element("target", dev=nic.tap, managed="no"))
    element.append(_element("model", type="virtio"))
    if nic.mtu != 1500:
        element.append(_element("mtu", size=str(nic.mtu)))
    element.append(_element("rom", enabled="no"))  # no network boot
    return element


def _console(path: str) -> Element:
    """The serial console: QEMU opens both FIFOs, PATH.in and PATH.out, and keeps them open."""
    element = _element("serial", type="pipe")
    element.append(_element("source", path=path))
    target = _element("target", type="isa-serial", port="0")
    target.append(_element("model", name="isa-serial"))
    element.append(target)
    return element


def _output(name: str, path: str) -> Element:
    """A port from the guest that QEMU writes to a file: it needs no reader on the host."""
    element = _element("channel", type="file")
    element.append(_element("source", path=path, append="off"))
    element.append(_element("target", type="virtio", name=name))
    return element


def _fifo(name: str, path: str) -> Element:
    """A port into the guest without a connection: QEMU keeps both ends open, so writers can open and close it."""
    element = _element("channel", type="pipe")
    element.append(_element("source", path=path))
    element.append(_element("target", type="virtio", name=name))
    return element


def _socket(name: str, path: str) -> Element:
    """A port into the guest with an end of file: the guest reads it when the host closes its side."""
    element = _element("channel", type="unix")
    element.append(_element("source", mode="bind", path=path))
    element.append(_element("target", type="virtio", name=name))
    return element


def _volume(tag: str, path: str) -> Element:
    """A virtiofs device; its file server is a process of ours at this socket, see vmm/volumes/server.py."""
    element = _element("filesystem", type="mount")
    element.append(_element("driver", type="virtiofs", queue="1024"))
    element.append(_element("source", socket=path))
    element.append(_element("target", dir=tag))
    return element


def _balloon(machine: Machine) -> Element:
    """Free page reporting: memory that the guest frees is given back to the host without a request.

    A guest whose memory begins as a file must have none: QEMU gives pages of a file back by punching holes into it,
    also if it has mapped the file privately (ram_block_discard_range in softmmu/physmem.c).
    """
    if not machine.balloon:
        return _element("memballoon", model="none")
    return _element("memballoon", model="virtio", freePageReporting="on")


def _rng() -> Element:
    element = _element("rng", model="virtio")
    backend = _element("backend", model="random")
    backend.text = "/dev/urandom"
    element.append(backend)
    return element


def _qemu_arguments(machine: Machine) -> Element:
    """Make QEMU exit when the guest powers off or panics: libvirt passes -no-shutdown, but runs no more to end QEMU.

    A processor has about 200 interrupt vectors. With two for each of many disks, the last disks would get none.
    """
    from vmm import pmem

    element = _element(f"{{{QEMU_NAMESPACE}}}commandline")
    many = rootbus.are_many(len(_disks(machine)), len(machine.nics) + len(machine.volumes))
    shared = ("-global", "virtio-blk-pci.vectors=0") if many else ()
    for value in ("-action", "shutdown=poweroff,panic=shutdown", *shared, *pmem.arguments(machine), *_saved(machine)):
        element.append(_element(f"{{{QEMU_NAMESPACE}}}arg", value=value))
    return element


def _saved(machine: Machine) -> tuple[str, ...]:
    """Return the arguments of a guest that begins with the memory of a saved one; QEMU waits for its devices' state.

    The file is mapped privately: pages that are not written are shared by all such guests, in the host's page cache.
    The state has no section of the configuration (qmp_xen_save_devices_state in migration/savevm.c). The guest ends if
    it reboots, since it has no kernel. One that was suspended has its kernel, and memory as any other; without a
    firmware that we can give back to it (vmm/saved/saving.py), it ends as well.
    """
    waits = ("-global", "migration.send-configuration=off", "-incoming", "defer")
    ends = ("-action", "reboot=shutdown")
    if not machine.ram:
        return (*waits, *(() if machine.firmware else ends)) if machine.resumes else ()
    path = machine.ram.replace(",", ",,")
    memory = f"memory-backend-file,id={_RAM},mem-path={path},share=off,size={math.ceil(machine.memory_bytes / KIB)}K"
    return (
        *("-object", memory, "-machine", f"memory-backend={_RAM}"),
        *(*waits, *ends),
    )


def _qemu_capabilities() -> Element:
    """Remove a capability with which libvirt reads 400 CPU properties, one message each: 0.5 s of every start."""
    element = _element(f"{{{QEMU_NAMESPACE}}}capabilities")
    element.append(_element(f"{{{QEMU_NAMESPACE}}}del", capability="cpu-unavailable-features"))
    return element


def _element(tag: str, **attributes: str) -> Element:
    from xml.etree.ElementTree import Element

    return Element(tag, attributes)


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    element = _element(tag, **attributes)
    element.text = text
    parent.append(element)
