"""Networks of bridge and cables: one bridge per network, all of them in the switch.

Every change is one netlink message; no program is started.
"""

from __future__ import annotations

import errno
import os
from _socket import AF_INET, if_nameindex, if_nametoindex, inet_aton, inet_pton
from contextlib import suppress

from vmctl.errors import ConflictError, SpecError, UnavailableError
from vmctl.linux import netlink
from vmctl.named import TYPE_CHECKING
from vmctl.net import ANY, Link, Wish, apart, guard, names, switch
from vmctl.net.subnets import Subnet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from vmctl.journal import Journal
    from vmctl.net import Owner

_UNTIED = "an earlier version of vmctl has made the network: end its instances by `vmctl down`, then start again"
MTU = 65520  # as large as a veth and a tap can have it: each packet costs the same


def mac_of(address: str) -> str:
    """Return the MAC for an address: locally administered, and unique in the switch as the address is."""
    first, *rest = inet_aton(address)
    return f"52:54:{first ^ 10:02x}:{bytes(rest).hex(':')}"  # 00 for the addresses of the default network


class BridgeNetwork:
    """One bridge with its subnet. Instances of one network reach each other, and none of another network."""

    def __init__(
        self,
        name: str,
        subnet: str,
        bridge_index: int,
        called: str = "",
        *,
        internal: bool = False,
        mtu: int = MTU,
        record: str = "",
    ) -> None:
        """Take the bridge's name and its interface index: a chosen index, so that no command has to look it up.

        `called` is the user's name for the network, whose `record` has to exist; an `internal` one has no way out.
        """
        self.name = name
        self.index = bridge_index
        self.subnet = Subnet(subnet)
        self.called = called or name
        self.internal = internal
        self.mtu = mtu
        self._record = record

    def attach(self, owner: Owner, journal: Journal, held: str | None = None, wish: Wish = ANY) -> Link:
        """Reserve an address, unless `held` still is the owner's, and make bridge and switch if necessary.

        Raises UnavailableError if the kernel refuses a namespace, ConflictError if every address, the one that is asked
        for or one of the names is in use, and NotFoundError if the network was removed meanwhile.
        """
        with switch.locked() as folder:
            self._refuse_removed()
            is_held = held is not None and switch.holds(folder, held, owner.directory)
            used = switch.used(folder)
            address = held if held and is_held else self._address(owner, wish.address or held, used, wish)
            link = self._link(owner, address, wish)
            if not is_held:
                names.check(self.name, self.called, wish)
                journal.record("link", address=link.address, device=link.device, **self.entry())
            # the lease comes last: so the bridge of every lease exists
            is_first = not any(address in self.subnet for address in used)
            self._ensure(owner, is_first=is_first)
            link = self._named(link, wish)
            if not is_held:
                switch.take(folder, link.address, owner.directory)
        return link

    def _refuse_removed(self) -> None:
        if self._record and not os.path.exists(self._record):
            from vmctl.net import catalog

            raise catalog.absent(self.called)

    def _address(self, owner: Owner, asked: str | None, used: Collection[str], wish: Wish) -> str:
        """Return the address that is asked for, or that the owner had before a restart of the host, else a free one."""
        if wish.address is not None:
            self.check_address(wish.address)
        if asked is not None and asked in self.subnet and asked not in used:
            return asked
        if wish.address is not None:
            raise ConflictError(
                f"the address {wish.address} of {owner.name} is taken in the network {self.called}",
                hint="leave it out, and the first free one is used",
            )
        return self.subnet.first_free(used)

    def serve(
        self, owner: Owner, journal: Journal, links: tuple[Link, ...], held: str | None, servers: Sequence[str]
    ) -> str:
        """Return the address of a name server for one instance; see joint.py."""
        from vmctl.net import joint

        return joint.serve(self, owner, journal, links, held, servers)

    def check_address(self, address: str) -> None:
        """Raise SpecError if no instance of this network can have the address."""
        if not self.subnet.is_for_instances(address):
            raise SpecError(
                f"the address {address} is not one for instances of the network {self.called}, {self.subnet.text}",
                hint=f"{self.subnet.gateway} is the switch's; leave it out, and the first free one is used",
            )

    def _named(self, link: Link, wish: Wish) -> Link:
        """Make the names of a place known, and return it with them and with the name server, if there is one."""
        known = names.add(self.name, link.address, wish)
        is_served = names.serve(self.name, link.gateway)
        return link._replace(names=known, resolver=link.gateway if is_served else "")

    def make_tap(self, link: Link) -> str:
        """Make the persistent tap of a guest, on the bridge and up, and return its name (in the switch); repeatable.

        QEMU opens it with the same flags from inside the switch. Raises UnavailableError if there is no tun driver.
        """
        from vmctl.linux.taps import new_tap

        index = self._port(link.address)

        def make() -> None:
            switch.inside(lambda: new_tap(link.device, index))
            tap = netlink.set_up(link.device, self.index, self.mtu)
            switch.apply(tap, *self._tied(link), guard.hide_ssh(link.address))

        try:
            self._in_place_of_another(link, make)
        except OSError as error:
            hint = _hint(error, "/dev/net/tun must be usable: `modprobe tun`")
            raise UnavailableError(
                f"the tap of {link.owner} cannot be made: {error.strerror or error}", hint=hint
            ) from error
        return link.device

    def plug(self, link: Link, pid: int) -> None:
        """Connect the bridge with the network namespace of process `pid`, in which the cable's end is `link.inside`.

        Raises UnavailableError if the kernel refuses.
        """
        index = self._port(link.address)
        cable = netlink.new_veth(link.device, index, self.index, link.inside, link.mac, pid, self.mtu)
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
            switch.delete(netlink.delete_link(link.device))
            switch.delete(netlink.delete_link_number(self._port(link.address)))
            make()

    def configure_inside(self, link: Link) -> None:
        """Set up lo and the cable in this process's namespace; for a container's first process. Raises OSError."""
        index = if_nametoindex(link.inside)
        netlink.apply(
            netlink.set_up("lo"),
            netlink.set_up(link.inside),
            netlink.new_address(index, link.address, link.prefix),
            *([netlink.default_route(index, link.gateway)] if link.gateway else []),
        )

    def enter(self) -> None:
        """Move this thread into the switch for good. Raises StateError if there is no switch."""
        switch.enter()

    def preview(self, owner: Owner, wish: Wish = ANY) -> Link:
        """Return the place that the first instance would get."""
        return self._link(owner, wish.address or self.subnet.first_free(()), wish)._replace(names=wish.names)

    def tap_command(self, link: Link) -> str:
        """Return what one would type in the switch in place of `make_tap`."""
        tap = link.device
        return f"ip tuntap add {tap} mode tap vnet_hdr; ip link set {tap} master {self.name} mtu {self.mtu} up"

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
                    self._remove_bridge()
            elif not switch.has_owner(leased, entry["address"]):  # cut short before the lease was taken
                self._forget(entry["address"])
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
                if not any(other in self.subnet for other in switch.in_use(leased)):
                    self._remove_bridge()

    def _remove_bridge(self) -> None:
        names.clear(self.name)
        switch.delete(netlink.delete_link(self.name))
        for request in apart.close_network(self.name, self.subnet.gateway, closed=self.internal):
            switch.delete(request)

    def _forget(self, address: str) -> None:
        """Forget the names of an address, and end the name server that has it."""
        names.remove(self.name, address)
        if os.path.isdir(names.folder(address)):
            from vmctl.net import joint

            joint.end(self, address)

    def _cut_off(self, address: str, device: str) -> None:
        self._forget(address)
        switch.delete(netlink.delete_link(device))
        switch.delete(netlink.delete_neighbour(self.index, address))
        switch.delete(guard.dismiss(device, mac_of(address), address))
        switch.delete(guard.show_ssh(address))

    def _link(self, owner: Owner, address: str, wish: Wish) -> Link:
        subnet, device = self.subnet, f"vm{owner.id}{wish.number or ''}"
        link = Link(self, owner.name, address, subnet.prefix, subnet.gateway, mac_of(address), device)
        return link._replace(inside=f"eth{wish.number}", mtu=self.mtu)

    def _ensure(self, owner: Owner, *, is_first: bool) -> None:
        """Make the switch, or only the bridge if this is the network's first instance."""
        try:
            if not switch.exists():
                switch.make(*guard.table(), *apart.table(), *self._bridge(), *self._open())
            elif is_first:
                with suppress(FileExistsError):  # a killed command got that far
                    switch.apply(*self._bridge())
                switch.apply(*self._open())
        except OSError as error:
            raise UnavailableError(
                f"the network namespace of {owner.name} cannot be made: {error.strerror or error}",
                hint="`vmctl doctor` shows what is missing, and whether it needs root",
            ) from error

    def _bridge(self) -> tuple[netlink.Request, ...]:
        gateway = self.subnet.gateway
        return (
            # Without a MAC given a bridge takes those of its ports, and each change flushes even permanent neighbours.
            netlink.new_bridge(self.name, self.index, mac_of(gateway), self.mtu),
            netlink.new_address(self.index, gateway, self.subnet.prefix),
        )

    def _open(self) -> tuple[netlink.Request, ...]:
        return apart.open_network(self.name, self.subnet.gateway, closed=self.internal)

    def entry(self) -> dict[str, str | int]:
        """Return the part of a journal entry about the network, so that `undo` needs nothing else."""
        entry: dict[str, str | int] = {"network": self.name, "subnet": self.subnet.text, "bridge": self.index}
        return {**entry, "internal": 1} if self.internal else entry

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


DEFAULT = BridgeNetwork("vmctl0", "10.77.0.0/16", 77, "bridge")


def undo(folder: str, entry: dict[str, Any]) -> None:
    """Undo a journal entry of kind `link` of the owner of `folder`; one without a network is of the default one.

    Raises ValueError for names and addresses that no network of vmctl has: they may be of something else.
    """
    _of_entry(entry).undo(folder, entry)


def forget_names(entry: dict[str, Any]) -> None:
    """Make the names of a place unknown, while its instance does not run. Raises ValueError as `undo` does."""
    network = _of_entry(entry)
    if switch.exists():
        with switch.locked():
            names.remove(network.name, entry["address"])


def _of_entry(entry: dict[str, Any]) -> BridgeNetwork:
    name, device = entry.get("network", DEFAULT.name), entry["device"]
    ours = name.startswith("vmctl") and name.isalnum() and device.startswith("vm") and device[2:].isalnum()
    if not ours or name == device:
        raise ValueError(f"{name} {device}")
    try:
        inet_pton(AF_INET, entry["address"])
        if "network" not in entry:
            return DEFAULT
        return BridgeNetwork(name, entry["subnet"], entry["bridge"], internal=bool(entry.get("internal")))
    except OSError:  # not an address
        raise ValueError(entry["address"]) from None


def _hint(error: OSError, otherwise: str) -> str:
    """Return the hint for a switch that has no guard, or the other one for any other error."""
    return _UNTIED if error.errno == errno.ENOENT and not error.filename else otherwise
