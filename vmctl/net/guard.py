"""What may enter a bridge by a port: frames of the port's own MAC and IPv4 address, ARP about these, and nothing else.

And what may leave a network by its bridge: nothing to another network, and nothing to an address of the switch that
belongs to another one, such as its name server: see apart.py.

Instances are hostile to each other. One that holds every capability in its network namespace, or a guest, can send any
frame. So each frame is checked where it enters the bridge, by a table of the switch: source MAC, sender's addresses in
ARP and the source address in IPv4 belong to the port. IPv6, VLAN tags and every other protocol are dropped, with them
router advertisements; and so is DHCP, which has no server here. The table is made with the switch; an instance adds one
key to a set.
"""

from __future__ import annotations

import struct
from _socket import inet_aton

from vmctl.linux import nftables as nft
from vmctl.linux.netlink import Request, octets

TABLE, PORTS, GUESTS = "vmctl", "ports", "guests"
SSH, DNS = 22, 53
_DHCP = (67, 68)  # of servers and of clients
_UDP, _TCP = b"\x11", b"\x06"
_ARP = (
    nft.load(nft.LINK, 12, 2),
    nft.compare(b"\x08\x06"),
    nft.load(nft.NETWORK, 0, 6),
    nft.compare(b"\0\x01\x08\0\x06\x04"),  # addresses are MACs and IPv4
)
_IPV4 = (nft.load(nft.LINK, 12, 2), nft.compare(b"\x08\0"))
_PORT = (nft.load_input_name(word=0), nft.in_set(PORTS))
_KEY = struct.Struct("16s6sxx4s")  # of a port: its name, MAC and address
_MAC_WORD, _ADDRESS_WORD = 4, 6  # where they are, in words of 4 bytes
_SOURCE_MAC = nft.load(nft.LINK, 6, 6, _MAC_WORD)


def table() -> tuple[Request, ...]:
    """Return the requests that make the table, with no port in it."""
    return (
        nft.new_table(TABLE),
        nft.new_set(TABLE, PORTS, "ifname", "ether_addr", "ipv4_addr"),
        nft.new_set(TABLE, GUESTS, "ipv4_addr"),
        nft.new_chain(TABLE, "entry", "prerouting", "drop"),
        *(nft.new_rule(TABLE, "entry", *rule) for rule in (_arp(), _dhcp(), _ssh(), _ipv4())),
        nft.new_chain(TABLE, "own", "output", "accept"),
        *(nft.new_rule(TABLE, "own", *_answers(protocol)) for protocol in (_UDP, _TCP)),
        nft.new_rule(TABLE, "own", *_other_users()),
    )


def admit(device: str, mac: str, address: str) -> Request:
    """Return the request that lets an instance's frames in by its port."""
    return nft.new_element(TABLE, PORTS, *_key(device, mac, address))


def dismiss(device: str, mac: str, address: str) -> Request:
    """Return the request that undoes `admit`; it fails with ENOENT if there is nothing to undo."""
    return nft.delete_element(TABLE, PORTS, *_key(device, mac, address))


def hide_ssh(address: str) -> Request:
    """Return the request that puts the SSH server of a guest out of reach of all other instances."""
    return nft.new_element(TABLE, GUESTS, inet_aton(address), f"'{{ {address} }}'")


def show_ssh(address: str) -> Request:
    """Return the request that undoes `hide_ssh`; it fails with ENOENT if there is nothing to undo."""
    return nft.delete_element(TABLE, GUESTS, inet_aton(address), f"'{{ {address} }}'")


def _arp() -> tuple[list[bytes], str]:
    sender = nft.load(nft.NETWORK, 14, 4, _ADDRESS_WORD)
    own_sender = (nft.load(nft.NETWORK, 8, 6, _MAC_WORD), sender, *_PORT)
    own_frame = (_SOURCE_MAC, sender, *_PORT)
    words = (
        "ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4"
        f" iifname . arp saddr ether . arp saddr ip @{PORTS} iifname . ether saddr . arp saddr ip @{PORTS} accept"
    )
    return [*_ARP, *own_sender, *own_frame, nft.verdict("accept")], words


def _dhcp() -> tuple[list[bytes], str]:
    first, last = (number.to_bytes(2, "big") for number in _DHCP)
    port = (nft.load(nft.TRANSPORT, 2, 2), nft.compare(first, nft.AT_LEAST), nft.compare(last, nft.AT_MOST))
    words = f"ether type ip ip protocol udp udp dport {_DHCP[0]}-{_DHCP[1]} drop"
    return [*_IPV4, *_protocol(_UDP), *port, nft.verdict("drop")], words


def _ssh() -> tuple[list[bytes], str]:
    port = (nft.load(nft.TRANSPORT, 2, 2), nft.compare(SSH.to_bytes(2, "big")))
    guest = (nft.load(nft.NETWORK, 16, 4), nft.in_set(GUESTS))
    words = f"ether type ip ip protocol tcp tcp dport {SSH} ip daddr @{GUESTS} drop"
    return [*_IPV4, *_protocol(_TCP), *port, *guest, nft.verdict("drop")], words


def _ipv4() -> tuple[list[bytes], str]:
    source = (_SOURCE_MAC, nft.load(nft.NETWORK, 12, 4, _ADDRESS_WORD), *_PORT)
    return [*_IPV4, *source, nft.verdict("accept")], f"ether type ip iifname . ether saddr . ip saddr @{PORTS} accept"


def _answers(protocol: bytes) -> tuple[list[bytes], str]:
    """Return the rule for the name server, which has another uid; QEMU may not bind such a port."""
    port = (nft.load(nft.TRANSPORT, 0, 2), nft.compare(DNS.to_bytes(2, "big")))
    name = "udp" if protocol == _UDP else "tcp"
    words = f"ether type ip ip protocol {name} {name} sport {DNS} accept"
    return [*_IPV4, *_protocol(protocol), *port, nft.verdict("accept")], words


def _other_users() -> tuple[list[bytes], str]:
    """Return the rule against a QEMU that its guest has taken over: it is in the switch, but not with vmctl's uid."""
    return [nft.load_user(), nft.compare(bytes(4), nft.UNEQUAL), nft.verdict("drop")], "meta skuid != 0 drop"


def _protocol(number: bytes) -> tuple[bytes, bytes]:
    return nft.load(nft.NETWORK, 9, 1), nft.compare(number)


def _key(device: str, mac: str, address: str) -> tuple[bytes, str]:
    return _KEY.pack(device.encode(), octets(mac), inet_aton(address)), f"'{{ {device} . {mac} . {address} }}'"
