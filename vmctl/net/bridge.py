"""Networks of bridge and cables: one bridge per network, all of them in the switch.

Every change is one netlink message; no program is started.
"""

from __future__ import annotations

import errno
import os
from _socket import AF_INET, if_nameindex, if_nametoindex, inet_aton, inet_ntoa, inet_pton
from contextlib import suppress

from vmctl.errors import ConflictError, UnavailableError
from vmctl.linux import netlink
from vmctl.named import TYPE_CHECKING
from vmctl.net import Link, guard, switch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, TypeGuard

    from vmctl.journal import Journal
    from vmctl.net import Owner

_BRIDGE, _FIRST = 1, 2  # 0 is the network itself, the last address is for broadcasts
_UNTIED = "an earlier version of vmctl has made the network: end its instances by `vmctl down`, then start again"
INSIDE = "eth0"  # the name of the container's end of the cable


class Subnet:
    """An IPv4 network such as 192.0.2.0/24. Its first address is the bridge's, the others are for instances."""

    def __init__(self, text: str) -> None:
        base, _, prefix = text.partition("/")
        self.text = text
        self.prefix = int(prefix)
        self._base = int.from_bytes(inet_aton(base), "big")
        self._size = 1 << (32 - self.prefix)
        self.gateway = self._address(_BRIDGE)

    def __contains__(self, address: str) -> bool:
        return 0 <= self.number(address) < self._size

    def number(self, address: str) -> int:
        """Return how many addresses are below this one."""
        return int.from_bytes(inet_aton(address), "big") - self._base

    def first_free(self, used: Collection[str]) -> str:
        """Return the lowest address for an instance that is not in `used`. Raises ConflictError if all are."""
        for number in range(_FIRST, self._size - 1):
            address = self._address(number)
            if address not in used:
                return address
        raise ConflictError(f"every address of {self.text} is in use", hint="`vmctl rm` instances you no longer need")

    def _address(self, number: int) -> str:
        return inet_ntoa((self._base + number).to_bytes(4, "big"))


def mac_of(address: str) -> str:
    """Return the MAC for an address: locally administered, and unique in the switch as the address is."""
    return f"52:54:00:{inet_aton(address)[1:].hex(':')}"


class BridgeNetwork:
    """One bridge with its subnet. Instances of one network reach each other, and none of another network."""

    def __init__(self, name: str, subnet: str, bridge_index: int) -> None:
        """Take the bridge's name and its interface index: a chosen index, so that no command has to look it up."""
        self.name = name
        self.index = bridge_index
        self.subnet = Subnet(subnet)

    def attach(self, owner: Owner, journal: Journal, held: str | None = None) -> Link:
        """Reserve an address, unless `held` still is the owner's, and make bridge and switch if necessary.

        Raises UnavailableError if the kernel refuses a namespace, ConflictError if every address is in use.
        """
        with switch.locked() as folder:
            if held is not None and switch.holds(folder, held, owner.directory):
                link = self._link(owner, held)
                self._ensure(owner, is_first=False)
                return link
            used = switch.used(folder)
            link = self._link(owner, held if self._is_free(held, used) else self.subnet.first_free(used))
            journal.record("link", address=link.address, device=link.device, **self._entry())
            # the lease comes last: so the bridge of every lease exists
            self._ensure(owner, is_first=not any(address in self.subnet for address in used))
            switch.take(folder, link.address, owner.directory)
        return link

    def _is_free(self, held: str | None, used: Collection[str]) -> TypeGuard[str]:
        """Return whether a former address of the owner is available, after a restart of the host."""
        return held is not None and held in self.subnet and held not in used

    def make_tap(self, link: Link) -> str:
        """Make the persistent tap of a guest, on the bridge and up, and return its name (in the switch); repeatable.

        QEMU opens it with the same flags from inside the switch. Raises UnavailableError if there is no tun driver.
        """
        from vmctl.linux.taps import new_tap

        index = self._port(link.address)

        def make() -> None:
            switch.inside(lambda: new_tap(link.device, index))
            switch.apply(netlink.set_up(link.device, self.index), *self._tied(link), guard.hide_ssh(link.address))

        try:
            self._in_place_of_another(link, make)
        except OSError as error:
            hint = _hint(error, "/dev/net/tun must be usable: `modprobe tun`")
            raise UnavailableError(
                f"the tap of {link.owner} cannot be made: {error.strerror or error}", hint=hint
            ) from error
        return link.device

    def plug(self, link: Link, pid: int) -> None:
        """Connect the bridge with the network namespace of process `pid`, in which the cable's end is called eth0.

        Raises UnavailableError if the kernel refuses.
        """
        index = self._port(link.address)
        cable = netlink.new_veth(link.device, index, self.index, INSIDE, link.mac, pid)
        try:
            self._in_place_of_another(link, lambda: switch.apply(cable, *self._tied(link)))
        except OSError as error:
            hint = _hint(error, "")
            raise UnavailableError(
                f"{link.owner} cannot be connected to its network: {error.strerror}", hint=hint
            ) from error

    def _in_place_of_another(self, link: Link, make: Callable[[], None]) -> None:
        """Call `make`, and again if the name or the index of the port is in use, once that is free.

        The kernel takes its time to remove a dead namespace, and with it the port of the run before. The port of an
        instance whose folder was deleted by hand is still there, too.
        """
        try:
            make()
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.EBUSY):
                raise
            _delete(netlink.delete_link(link.device))
            _delete(netlink.delete_link_number(self._port(link.address)))
            make()

    def configure_inside(self, link: Link) -> None:
        """Set up lo and eth0 in this process's namespace; for a container's first process. Raises OSError."""
        index = if_nametoindex(INSIDE)
        netlink.apply(
            netlink.set_up("lo"),
            netlink.set_up(INSIDE),
            netlink.new_address(index, link.address, link.prefix),
            netlink.default_route(index, link.gateway),
        )

    def enter(self) -> None:
        """Move this thread into the switch for good. Raises StateError if there is no switch."""
        switch.enter()

    def preview(self, owner: Owner) -> Link:
        """Return the place that the first instance would get."""
        return self._link(owner, self.subnet.first_free(()))

    def tap_command(self, link: Link) -> str:
        """Return what one would type in the switch in place of `make_tap`."""
        tap = link.device
        return f"ip tuntap add {tap} mode tap vnet_hdr; ip link set {tap} master {self.name} up"

    def undo(self, folder: str, entry: dict[str, Any]) -> None:
        """Undo a journal entry of kind `link` of the owner of `folder`, even if only part of it was made.

        The last instance of the network takes the bridge along, the last one of all the switch.
        """
        with switch.locked() as leased:
            ours = entry["address"] if switch.holds(leased, entry["address"], folder) else None
            others = (address for address in switch.in_use(leased) if address != ours)
            some = next(others, None)
            if some is None:
                switch.remove()
            elif ours and switch.exists():
                self._cut_off(ours, entry["device"])
                if some not in self.subnet and not any(address in self.subnet for address in others):
                    _delete(netlink.delete_link(self.name))
            if ours:  # last: if this is cut short, the next call does it again
                switch.release(leased, ours)

    def clear(self, address: str) -> None:
        """Give back the address of an owner that is gone, with its port; the last address takes the switch along."""
        with switch.locked() as leased:
            if switch.has_owner(leased, address):  # somebody else has it by now
                return
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(leased, address))
            if next(switch.in_use(leased), None) is None:
                switch.remove()
            elif switch.exists() and address in self.subnet:
                ports = switch.inside(if_nameindex)
                device = next((name for index, name in ports if index == self._port(address)), "")
                self._cut_off(address, device or f"vm{address}")  # without a port, there may be rules of it

    def _cut_off(self, address: str, device: str) -> None:
        _delete(netlink.delete_link(device))
        _delete(netlink.delete_neighbour(self.index, address))
        _delete(guard.dismiss(device, mac_of(address), address))
        _delete(guard.show_ssh(address))

    def _link(self, owner: Owner, address: str) -> Link:
        subnet = self.subnet
        return Link(self, owner.name, address, subnet.prefix, subnet.gateway, mac_of(address), f"vm{owner.id}")

    def _ensure(self, owner: Owner, *, is_first: bool) -> None:
        """Make the switch, or only the bridge if this is the network's first instance."""
        try:
            if not switch.exists():
                switch.make(*self._bridge(), *guard.table())
            elif is_first:
                with suppress(FileExistsError):  # a killed command got that far
                    switch.apply(*self._bridge())
        except OSError as error:
            raise UnavailableError(
                f"the network namespace of {owner.name} cannot be made: {error.strerror or error}",
                hint="`vmctl doctor` shows what is missing, and whether it needs root",
            ) from error

    def _bridge(self) -> tuple[netlink.Request, ...]:
        gateway = self.subnet.gateway
        return (
            # Without a MAC given a bridge takes those of its ports, and each change flushes even permanent neighbours.
            netlink.new_bridge(self.name, self.index, mac_of(gateway)),
            netlink.new_address(self.index, gateway, self.subnet.prefix),
        )

    def _entry(self) -> dict[str, str | int]:
        """Return the part of a journal entry about the network, so that `undo` needs nothing else."""
        return {"network": self.name, "subnet": self.subnet.text, "bridge": self.index}

    def _port(self, address: str) -> int:
        """Return the interface index of an address's port, which no other port in the switch has."""
        return self.index << 16 | self.subnet.number(address)

    def _tied(self, link: Link) -> tuple[netlink.Request, ...]:
        """Return the requests that tie port, MAC and address of an instance together."""
        return (
            *netlink.tie_port(link.device, self._port(link.address), link.mac),
            netlink.new_neighbour(self.index, link.address, link.mac),
            guard.admit(link.device, link.mac, link.address),
        )


DEFAULT = BridgeNetwork("vmctl0", "10.77.0.0/16", 77)


def undo(folder: str, entry: dict[str, Any]) -> None:
    """Undo a journal entry of kind `link` of the owner of `folder`; one without a network is of the default one.

    Raises ValueError for names and addresses that no network of vmctl has: they may be of something else.
    """
    name, device = entry.get("network", DEFAULT.name), entry["device"]
    if not (name.startswith("vmctl") and device.startswith("vm") and device[2:].isalnum() and name != device):
        raise ValueError(f"{name} {device}")
    try:
        inet_pton(AF_INET, entry["address"])
        network = BridgeNetwork(entry["network"], entry["subnet"], entry["bridge"]) if "network" in entry else DEFAULT
    except OSError:  # not an address
        raise ValueError(entry["address"]) from None
    network.undo(folder, entry)


def _hint(error: OSError, otherwise: str) -> str:
    """Return the hint for a switch that has no guard, or the other one for any other error."""
    return _UNTIED if error.errno == errno.ENOENT and not error.filename else otherwise


def _delete(request: netlink.Request) -> None:
    """Execute the request unless what it deletes does not exist."""
    try:
        switch.apply(request)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise
