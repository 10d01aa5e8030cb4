"""Name servers that an instance asks for: whether it can have them, and that only its own name server reaches them."""

from __future__ import annotations

import sys
from _socket import inet_aton

from vmctl.errors import SpecError, UnavailableError, VmctlError
from vmctl.linux import nftables as nft
from vmctl.named import TYPE_CHECKING
from vmctl.net import resolver, switch, uplink
from vmctl.spec.rules import lookups

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmctl.spec.egress import Destination
    from vmctl.spec.workload import Workload

_KEY = "network.dns"


def let_ask(folder: str, servers: Sequence[str]) -> None:
    """Let the name server of a folder ask these; the caller has the lock. Raises OSError.

    One with the user of vmctl, of an ordinary user without subordinate ids, may leave anyway.
    """
    uid = resolver.uid_of(folder)
    if uid is not None and servers:
        switch.apply(*(nft.new_element(uplink.TABLE, uplink.ASKED, *_key(uid, one), uplink.IP) for one in servers))


def let_ask_no_more(folder: str, words: Sequence[str]) -> None:
    """Undo `let_ask` for the addresses among words, before the user is given back; the caller has the lock."""
    uid = resolver.uid_of(folder)
    for one in words:
        if uid is not None and one and "." in one and one != resolver.UPSTREAM:
            switch.delete(nft.delete_element(uplink.TABLE, uplink.ASKED, *_key(uid, one), uplink.IP))


def _key(uid: int, address: str) -> tuple[bytes, str]:
    return uid.to_bytes(4, sys.byteorder) + inet_aton(address), f"'{{ {uid} . {address} }}'"


def refusals(work: Workload) -> Iterator[VmctlError]:
    """Yield an error for each reason why names cannot be looked up as the workload asks."""
    asked = lookups(work)
    if asked is None:
        return
    key = next(f"network.{name}" for name in ("dns", "dns_search", "dns_opt") if getattr(asked, name))
    if missing := resolver.missing():
        why = f"its networks have no name server: {missing[0]} is not installed"
        yield UnavailableError(f"{key}: {why}", hint="`vmctl doctor` shows how to install it")
    elif asked.dns:
        yield from _out_of_reach(work, asked.dns)


def _out_of_reach(work: Workload, servers: Sequence[str]) -> Iterator[VmctlError]:
    from vmctl.net import network_of

    networks = [network for network in map(network_of, (one.name for one in work.joined())) if network]
    if why := uplink.missing():
        yield UnavailableError(f"{_KEY}: there is no way out to name servers: {why}", hint="leave it out")
        return
    if all(network.internal for network in networks):
        yield UnavailableError(f"{_KEY}: there is no way out to name servers: all its networks are internal")
        return
    rules = _rules(work)
    for address in servers:
        number = int.from_bytes(inet_aton(address), "big")
        if any(first <= number < after for first, after in uplink.forbidden()):
            yield UnavailableError(
                f"{_KEY}: {address} leads nowhere: no instance can reach addresses of this host, loopback, link-local"
                " or multicast addresses",
                hint="without it, the name servers of this host are asked",
            )
        elif called := _network_with(address):
            yield UnavailableError(
                f"{_KEY}: {address} is in the network {called}, and the name server is asked on the way out",
                hint="`files: [{path: /etc/resolv.conf, content: ...}]` names an instance of the same network",
            )
        elif rules is not None and not all(_allows(rules, number, protocol) for protocol in ("tcp", "udp")):
            yield SpecError(
                f"{_KEY}: its egress rules do not let it reach {address} at port 53 by TCP and UDP",
                hint=f"add {address}:53 to them",
            )


def _network_with(address: str) -> str:
    """Return the name of the network of vmctl whose subnet has an address, "" if none has."""
    from vmctl.net import catalog

    network = catalog.containing(address)
    return network.called if address in network.subnet else ""


def _rules(work: Workload) -> Sequence[Destination] | None:
    """Return the egress rules with the addresses of names; None if everything can be reached."""
    from vmctl.net import egress
    from vmctl.spec.egress import parse

    asked = work.egress()
    return None if isinstance(asked, str) else egress.resolve(map(parse, asked)).destinations


def _allows(rules: Sequence[Destination], number: int, protocol: str) -> bool:
    return any(
        one.first <= number <= one.last and one.low <= uplink.DNS <= one.high and one.protocol in ("", protocol)
        for one in rules
    )
