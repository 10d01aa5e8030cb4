"""Egress rules: which addresses outside an instance may reach; enforced in the switch, in every mode.

Each rule is about single packets that leave, by source, destination, protocol and port. The source cannot be forged:
see guard.py. A name means the addresses that it has when the instance starts; the instance finds it in its /etc/hosts.
Questions of the instance about other names go to a name server without a way out, because a question is a message too.
"""

from __future__ import annotations

import errno
from _socket import inet_aton

from vmctl.errors import UnavailableError
from vmctl.linux import netlink
from vmctl.linux import nftables as nft
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net import switch, uplink
from vmctl.net.uplink import FREE, IP, ONLY, REJECT, TABLE
from vmctl.spec.egress import Destination

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_PROTOCOLS = {"tcp": b"\x06", "udp": b"\x11"}


class Resolved(NamedTuple):
    """Destinations with addresses, and the names among them for hosts(5)."""

    destinations: tuple[Destination, ...]
    hosts: tuple[tuple[str, str], ...]  # (address, name)


def resolve(destinations: Iterable[Destination]) -> Resolved:
    """Replace names by the addresses that they have now, as this host resolves them.

    Raises UnavailableError for a name without an IPv4 address, or an address that no instance may reach.
    """
    found, hosts = [], []
    for one in destinations:
        for address in _addresses(one.name) if one.name else ():
            number = int.from_bytes(inet_aton(address), "big")
            found.append(one._replace(first=number, last=number))
            hosts.append((address, one.name))
        if not one.name:
            found.append(one)
    for one in found:
        _refuse_forbidden(one)
    return Resolved(tuple(found), tuple(hosts))


def restrict(address: str, destinations: Iterable[Destination]) -> None:
    """Let the instance with this address reach only these destinations, in place of what an earlier one could reach.

    The caller has the lock of the switch. Raises OSError if the kernel refuses a part of the filter.
    """
    uplink.make_table()
    key, chain = inet_aton(address), f"only_{address}"
    try:
        switch.apply(nft.delete_element(TABLE, FREE, key, f"'{{ {address} }}'", IP))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    switch.apply(
        nft.new_target(TABLE, chain, IP),
        nft.empty_chain(TABLE, chain, IP),
        *(nft.new_rule(TABLE, chain, *rule, IP) for one in destinations for rule in _rules(one)),
        nft.new_rule(TABLE, chain, [nft.reject()], REJECT, IP),
        nft.new_jump(TABLE, ONLY, key, chain, address, IP),
    )


def _addresses(name: str) -> Sequence[str]:
    import socket

    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise UnavailableError(
            f"the egress rule {name} cannot be enforced: its address is not known ({error.strerror or error})",
            hint=f"`getent ahostsv4 {name}` must answer on this host; or use addresses",
        ) from None
    return sorted({str(entry[4][0]) for entry in found})


def _refuse_forbidden(one: Destination) -> None:
    """Raise UnavailableError if all of the destination is of this host, or special: nothing of it can be reached."""
    for first, after in uplink.forbidden():
        if first <= one.first and one.last < after:
            what = f"{one.name}: " if one.name else ""
            raise UnavailableError(
                f"the egress rule {what}{netlink.text_of(one.first)} leads nowhere: no instance can reach addresses of"
                " this host, loopback, link-local or multicast addresses",
                hint="a service that is an instance is reached by its name in a common network",
            )


def _rules(one: Destination) -> Iterator[tuple[list[bytes], str]]:
    """Yield a rule that accepts packets to a destination, for each protocol."""
    first, last = (number.to_bytes(4, "big") for number in (one.first, one.last))
    to = [nft.load(nft.NETWORK, 16, 4), nft.compare(first, nft.AT_LEAST), nft.compare(last, nft.AT_MOST)]
    words = f"ip daddr {netlink.text_of(one.first)}-{netlink.text_of(one.last)}"
    if not one.protocol and not one.has_ports():
        yield [*to, nft.verdict("accept")], f"{words} accept"
        return
    low, high = (port.to_bytes(2, "big") for port in (one.low, one.high))
    ports = [nft.load(nft.TRANSPORT, 2, 2), nft.compare(low, nft.AT_LEAST), nft.compare(high, nft.AT_MOST)]
    for name in [one.protocol] if one.protocol else _PROTOCOLS:
        protocol = [nft.load_protocol(), nft.compare(_PROTOCOLS[name])]
        yield [*to, *protocol, *ports, nft.verdict("accept")], f"{words} {name} dport {one.low}-{one.high} accept"
