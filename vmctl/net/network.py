"""An instance's place on the switch: its address, its MAC, and the cable that leads to it.

Every change is one netlink message; no program is started.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from _socket import if_nametoindex
from contextlib import suppress

from vmctl.errors import UnavailableError
from vmctl.instance import Instance
from vmctl.linux import netlink
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net import addresses, switch

if TYPE_CHECKING:
    from typing import Any

# <linux/if_tun.h>
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000

INSIDE = "eth0"  # what a container calls its end of the cable


class Link(NamedTuple):
    """Where an instance is plugged in; `device` is the name of the switch's end."""

    address: str
    prefix: int
    gateway: str
    mac: str
    device: str


def attach(inst: Instance) -> Link:
    """Reserve an address for the instance and make the switch if this is the first one; repeatable.

    Sets `inst.state.address` and `inst.state.mac`. Raises UnavailableError where the kernel refuses a namespace.
    """
    with switch.locked() as folder:
        address = inst.state.address
        if address is None or not addresses.holds(folder, address, _owner(inst)):
            address = addresses.lowest_free(folder)
            inst.journal.record("link", address=address, device=_device(inst))
            addresses.take(folder, address, _owner(inst))
        try:
            switch.ensure()
        except OSError as error:
            raise UnavailableError(
                f"the network namespace of {inst.name} cannot be made: {error.strerror or error}",
                hint="this needs root; `vmctl doctor` says what else may be missing",
            ) from error
    link = Link(address, switch.PREFIX, switch.ADDRESS, addresses.mac_of(address), _device(inst))
    inst.state.address, inst.state.mac = link.address, link.mac
    return link


def make_tap(inst: Instance, link: Link) -> str:
    """Make the persistent tap of a guest, plugged in and up, and return its name (inside the switch); repeatable.

    QEMU opens it with the same flags from inside the switch. Raises UnavailableError where there is no tun driver.
    """
    with switch.entered():
        try:
            new_tap(link.device)
            netlink.apply(netlink.set_up(link.device, switch.BRIDGE_INDEX), _neighbour(link))
        except OSError as error:
            raise UnavailableError(
                f"the tap of {inst.name} cannot be made: {error.strerror or error}",
                hint="/dev/net/tun must be usable: `modprobe tun`",
            ) from error
    return link.device


def new_tap(name: str) -> None:
    """Make a persistent tap in the network namespace of this thread, or find it made; see the kernel's tuntap.rst."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def plug(inst: Instance, link: Link, pid: int) -> None:
    """Lay the cable between the switch and the network namespace of process `pid`, where its end is called eth0.

    Raises UnavailableError where the kernel refuses.
    """
    cable = netlink.new_veth(link.device, switch.BRIDGE_INDEX, INSIDE, link.mac, pid)
    with switch.entered():
        try:
            try:
                netlink.apply(cable, _neighbour(link))
            except FileExistsError:  # that of the run before: the kernel takes its time to remove a dead namespace
                _delete_device(link.device)
                netlink.apply(cable, _neighbour(link))
        except OSError as error:
            raise UnavailableError(f"the network cable of {inst.name} cannot be laid: {error.strerror}") from error


def configure_inside(link: Link) -> None:
    """Set up lo and eth0 in this process's namespace; for the container's own child, after `plug`. Raises OSError."""
    index = if_nametoindex(INSIDE)
    netlink.apply(
        netlink.set_up("lo"),
        netlink.set_up(INSIDE),
        netlink.new_address(index, link.address, link.prefix),
        netlink.default_route(index, link.gateway),
    )


def loopback_up() -> None:
    """Set up lo in this process's namespace, for an instance without a network. Raises OSError."""
    netlink.apply(netlink.set_up("lo"))


def undo(inst: Instance, entry: dict[str, Any]) -> None:
    """Undo a journal entry of kind `link`, however much of it came about; the last one takes the switch along."""
    with switch.locked() as folder:
        ours = addresses.holds(folder, entry["address"], _owner(inst))
        addresses.release(folder, entry["address"], _owner(inst))
        if not addresses.any_in_use(folder):
            switch.remove()
        elif ours and switch.exists():
            with switch.entered():
                _delete_device(entry["device"])
                _forget_neighbour(entry["address"])


def _owner(inst: Instance) -> str:
    return f"{inst.name}/{inst.state.id}"


def _device(inst: Instance) -> str:
    return f"vm{inst.state.id}"


def _neighbour(link: Link) -> netlink.Request:
    return netlink.new_neighbour(switch.BRIDGE_INDEX, link.address, link.mac)


def _delete_device(name: str) -> None:
    try:
        netlink.apply(netlink.delete_link(name))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _forget_neighbour(address: str) -> None:
    with suppress(FileNotFoundError):
        netlink.apply(netlink.delete_neighbour(switch.BRIDGE_INDEX, address))
