"""The kernel's protocol for network configuration: the part that a bridge, its ports and addresses need.

A request is one message. `apply` sends a list of them in one system call and reads one answer for each. This takes
some tens of microseconds. Starting `ip` takes milliseconds, which would be half of a container's start.
Sources: netlink(7), rtnetlink(7), <linux/if_link.h>, <linux/neighbour.h>.
"""

from __future__ import annotations

import os
import struct
from _socket import AF_INET, AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, inet_aton, inet_ntoa, socket

from vmctl import trace
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RTM_NEWLINK, RTM_DELLINK, RTM_SETLINK = 16, 17, 19
RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_NEWNEIGH, RTM_DELNEIGH, RTM_SETNEIGHTBL = 20, 21, 24, 28, 29, 67
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE, NLM_F_DUMP = 2, 3, 0x300
RTM_GETROUTE, RT_TABLE_LOCAL, RTN_LOCAL, RTA_DST, SOL_NETLINK, NETLINK_GET_STRICT_CHK = 26, 255, 2, 1, 270, 12
_RTMSG_BYTES = 12
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NFNL_SUBSYS_NFTABLES, _NFNL_BATCH = 10, (0x10, 0x11)  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_PID = 1, 3, 4, 10, 18, 19
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING = 1, 5, 23
IFA_ADDRESS, IFA_LOCAL, NDA_DST, NDA_LLADDR, RTA_GATEWAY, RTA_OIF = 1, 2, 1, 2, 5, 4
IFLA_PROTINFO, IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD = 12, 8, 9
AF_BRIDGE, NTF_MASTER, NUD_NOARP, NLA_F_NESTED = 7, 0x04, 0x40, 0x8000
NUD_PERMANENT, RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST, IFF_UP = 0x80, 254, 3, 1, 0x1
NDTA_NAME, NDTA_PARMS = 1, 6
NDTPA_IFINDEX, NDTPA_RETRANS_TIME, NDTPA_MCAST_PROBES = 1, 5, 11

_NLMSGHDR = struct.Struct("=IHHII")
_NFGENMSG = struct.Struct(">BBH")
_NFTABLES = _NFGENMSG.pack(0, 0, NFNL_SUBSYS_NFTABLES)
_RTATTR = struct.Struct("=HH")


class Request:
    """One message without its header, and the command that does the same, for errors and the trace."""

    def __init__(self, kind: int, flags: int, body: bytes, command: str) -> None:
        self.kind = kind
        self.flags = flags | NLM_F_REQUEST | NLM_F_ACK
        self.body = body
        self.command = command


class Filter(Request):
    """A message for the packet filter; those in one call of `apply` are executed together or not at all."""

    def __init__(self, kind: int, flags: int, family: int, body: bytes, command: str) -> None:
        super().__init__(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, _NFGENMSG.pack(family, 0, 0) + body, command)


class Connection:
    """A socket for requests; they are executed in the network namespace in which it was made."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        """Open it in the network namespace of this thread. Raises OSError."""
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        self._protocol = protocol
        self._sent = 0

    def apply(self, *requests: Request) -> None:
        """Execute requests, which are all for this protocol. Raises OSError for the first that is refused.

        Requests after that one are executed all the same, except those for the packet filter, of which none is.
        """
        first = self._sent
        self._sent += len(requests)
        messages = b"".join(_message(*each) for each in enumerate(requests, first))
        if self._protocol == NETLINK_NETFILTER:  # an error of the whole answers the begin, so it gets the first number
            begin, end = (_pack(kind, NLM_F_REQUEST, first, _NFTABLES) for kind in _NFNL_BATCH)
            messages = begin + messages + end
        self._socket.send(messages)
        for number, request in enumerate(requests, first):
            if code := self._answer(number):
                raise OSError(code, f"`{request.command}`: {os.strerror(code)}")
            if trace.on:
                trace.step(request.command)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _answer(self, number: int) -> int:
        """Return the error of a request, 0 for success."""
        while True:
            answer = self._socket.recv(8192)
            _, kind, _, answered, _ = _NLMSGHDR.unpack_from(answer)
            if answered == number:  # else it belongs to a request after a refused one, or to an interrupted call
                code: int = struct.unpack_from("=i", answer, _NLMSGHDR.size)[0] if kind == NLMSG_ERROR else 0
                return -code


def apply(*requests: Request) -> None:
    """Execute requests in the network namespace of this thread. Raises OSError for the first that is refused."""
    connection = Connection()
    try:
        connection.apply(*requests)
    finally:
        connection.close()


def new_bridge(name: str, index: int, mac: str, mtu: int = 1500) -> Request:
    """Create a bridge that forwards at once: no spanning tree, no forward delay, no multicast snooping."""
    options = (
        attribute(IFLA_BR_FORWARD_DELAY, struct.pack("=I", 0)),
        attribute(IFLA_BR_STP_STATE, struct.pack("=I", 0)),
        attribute(IFLA_BR_MCAST_SNOOPING, b"\0"),
    )
    body = _ifinfomsg(index, IFF_UP) + _name(name) + _mac(mac) + _mtu(mtu) + _info("bridge", b"".join(options))
    plain = "forward_delay 0 stp_state 0 mcast_snooping 0"
    command = f"ip link add {name} index {index} address {mac} mtu {mtu} up type bridge {plain}"
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, command)


def new_veth(name: str, index: int, master: int, peer: str, peer_mac: str, peer_pid: int, mtu: int = 1500) -> Request:
    """Create a veth pair: one end here on the bridge `master`, the other in the namespace of a process.

    The other end is created in that namespace. Moving a link there would wait for every reader in the kernel.
    """
    other = _ifinfomsg() + _name(peer) + _mac(peer_mac) + _mtu(mtu)
    other += attribute(IFLA_NET_NS_PID, struct.pack("=I", peer_pid))
    body = _ifinfomsg(index, IFF_UP) + _name(name) + _mtu(mtu) + _master(master)
    body += _info("veth", attribute(VETH_INFO_PEER, other))
    cable = f"type veth peer name {peer} address {peer_mac} mtu {mtu} netns {peer_pid}"
    command = f"ip link add {name} index {index} mtu {mtu} up master if{master} {cable}"
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, command)


def set_up(name: str, master: int | None = None, mtu: int | None = None) -> Request:
    """Set a link up; with `master`, make it a port of that bridge first."""
    body = _ifinfomsg(0, IFF_UP) + _name(name) + (_master(master) if master else b"") + (_mtu(mtu) if mtu else b"")
    added = f"{f' master if{master}' if master else ''}{f' mtu {mtu}' if mtu else ''}"
    return Request(RTM_NEWLINK, 0, body, f"ip link set {name} up{added}")


def new_pair(name: str, index: int, peer: str, peer_index: int, peer_pid: int, mtu: int) -> Request:
    """Create a veth pair: one end here, up, the other in the namespace of a process; both with this MTU."""
    other = _ifinfomsg(peer_index) + _name(peer) + _mtu(mtu) + attribute(IFLA_NET_NS_PID, struct.pack("=I", peer_pid))
    body = _ifinfomsg(index, IFF_UP) + _name(name) + _mtu(mtu) + _info("veth", attribute(VETH_INFO_PEER, other))
    cable = f"type veth peer name {peer} index {peer_index} mtu {mtu} netns {peer_pid}"
    command = f"ip link add {name} index {index} mtu {mtu} up {cable}"
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, command)


def ask_often(index: int, every_ms: int, times: int) -> Request:
    """Have ARP repeat a request on a link in this interval, so many times, before a neighbour counts as unreachable.

    Packets to the neighbour wait meanwhile (arp(7)).
    """
    interval = attribute(NDTPA_RETRANS_TIME, struct.pack("=Q", every_ms))
    link = attribute(NDTPA_IFINDEX, struct.pack("=I", index))
    parameters = link + interval + attribute(NDTPA_MCAST_PROBES, struct.pack("=I", times))
    table = struct.pack("=BBH", AF_INET, 0, 0) + attribute(NDTA_NAME, b"arp_cache\0")
    command = f"ip ntable change name arp_cache dev if{index} retrans {every_ms} mcast_probes {times}"
    return Request(RTM_SETNEIGHTBL, 0, table + attribute(NDTA_PARMS | NLA_F_NESTED, parameters), command)


def tie_port(name: str, index: int, mac: str) -> tuple[Request, Request]:
    """Have a bridge know the one MAC behind a port, learn none from its frames, and send it no frame of others.

    Without an entry for a MAC, which ends after 5 minutes of silence, a bridge sends its frames to every port.
    """
    off = attribute(IFLA_BRPORT_LEARNING, b"\0") + attribute(IFLA_BRPORT_UNICAST_FLOOD, b"\0")
    port = struct.pack("=BBHiII", AF_BRIDGE, 0, 0, index, 0, 0) + attribute(IFLA_PROTINFO | NLA_F_NESTED, off)
    known = struct.pack("=BBHiHBB", AF_BRIDGE, 0, 0, index, NUD_NOARP, NTF_MASTER, 0)
    known += attribute(NDA_LLADDR, octets(mac))
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return (
        Request(RTM_SETLINK, 0, port, f"bridge link set dev {name} learning off flood off"),
        Request(RTM_NEWNEIGH, flags, known, f"bridge fdb replace {mac} dev {name} master static"),
    )


def delete_link(name: str) -> Request:
    """Remove a link; the other end of a veth pair is removed with it."""
    return Request(RTM_DELLINK, 0, _ifinfomsg() + _name(name), f"ip link del {name}")


def delete_link_number(index: int) -> Request:
    """Remove the link with this index."""
    return Request(RTM_DELLINK, 0, _ifinfomsg(index), f"ip link del if{index}")


def new_address(index: int, address: str, prefix: int) -> Request:
    """Add an IPv4 address to a link; the kernel adds the route to its network."""
    command = f"ip address add {address}/{prefix} dev if{index}"
    return Request(RTM_NEWADDR, NLM_F_CREATE, _ifaddrmsg(index, address, prefix), command)


def delete_address(index: int, address: str, prefix: int) -> Request:
    """Remove an IPv4 address from a link."""
    command = f"ip address del {address}/{prefix} dev if{index}"
    return Request(RTM_DELADDR, 0, _ifaddrmsg(index, address, prefix), command)


def default_route(index: int, gateway: str) -> Request:
    """Add a default route."""
    header = struct.pack("=BBBBBBBBI", AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0)
    body = header + attribute(RTA_GATEWAY, inet_aton(gateway)) + attribute(RTA_OIF, struct.pack("=I", index))
    return Request(RTM_NEWROUTE, NLM_F_CREATE, body, f"ip route add default via {gateway} dev if{index}")


def new_neighbour(index: int, address: str, mac: str) -> Request:
    """Add a permanent neighbour entry: no ARP request is sent, so nothing waits for ARP's retry after 1 s."""
    body = _ndmsg(index) + attribute(NDA_DST, inet_aton(address)) + attribute(NDA_LLADDR, octets(mac))
    command = f"ip neigh replace {address} lladdr {mac} dev if{index}"
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, command)


def delete_neighbour(index: int, address: str) -> Request:
    """Remove a permanent neighbour entry."""
    body = _ndmsg(index) + attribute(NDA_DST, inet_aton(address))
    return Request(RTM_DELNEIGH, 0, body, f"ip neigh del {address} dev if{index}")


def own_ranges() -> list[tuple[int, int]]:
    """Return the ranges of IPv4 addresses that are this host's, in the network namespace of this thread.

    Each is the first address and the one after the last, as numbers. They are the routes of type `local`
    (rtnetlink(7)); the loopback network is one of them. Raises OSError.
    """
    filters = struct.pack("=BBBBBBBBI", AF_INET, 0, 0, 0, RT_TABLE_LOCAL, 0, 0, RTN_LOCAL, 0)
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(filters), RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 0, 0)
    routes = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        routes.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)  # the kernel applies the filters
        routes.send(header + filters)
        return list(_destinations(routes))
    finally:
        routes.close()


def _destinations(routes: socket) -> Iterator[tuple[int, int]]:
    """Yield the range of addresses of each route that a socket answers with."""
    while True:
        answer = routes.recv(1 << 16)
        offset = 0
        while offset < len(answer):
            size, kind, *_ = _NLMSGHDR.unpack_from(answer, offset)
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                return
            yield _destination(answer[offset + _NLMSGHDR.size : offset + size])
            offset += size + -size % 4


def _destination(route: bytes) -> tuple[int, int]:
    """Return the range of addresses of a route: struct rtmsg, then attributes, one of which is the destination."""
    offset, address = _RTMSG_BYTES, bytes(4)
    while offset < len(route):
        size, kind = _RTATTR.unpack_from(route, offset)
        if kind == RTA_DST:
            address = route[offset + _RTATTR.size : offset + size]
        offset += size + -size % 4
    return range_of(address, route[1])


def range_of(address: bytes, prefix: int) -> tuple[int, int]:
    """Return the first address of a network and the one after its last, as numbers; the very last is left out."""
    size = 1 << (32 - prefix)
    first = int.from_bytes(address, "big") & -size
    return first, min(first + size, 0xFFFFFFFF)


def text_of(number: int) -> str:
    """Return an IPv4 address as a text."""
    return inet_ntoa(number.to_bytes(4, "big"))


def _message(number: int, request: Request) -> bytes:
    return _pack(request.kind, request.flags, number, request.body)


def _pack(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, flags, number, 0) + body


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute of a message."""
    size = _RTATTR.size + len(payload)
    return _RTATTR.pack(size, kind) + payload + bytes(-size % 4)


def _ifinfomsg(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BBHiII", 0, 0, 0, index, flags, flags)


def _ifaddrmsg(index: int, address: str, prefix: int) -> bytes:
    raw = inet_aton(address)
    header = struct.pack("=BBBBI", AF_INET, prefix, 0, 0, index)
    return header + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)


def _ndmsg(index: int) -> bytes:
    return struct.pack("=BBHiHBB", AF_INET, 0, 0, index, NUD_PERMANENT, 0, 0)


def _name(name: str) -> bytes:
    return attribute(IFLA_IFNAME, name.encode() + b"\0")


def _master(index: int) -> bytes:
    return attribute(IFLA_MASTER, struct.pack("=I", index))


def _mtu(mtu: int) -> bytes:
    return attribute(IFLA_MTU, struct.pack("=I", mtu))


def _mac(mac: str) -> bytes:
    return attribute(IFLA_ADDRESS, octets(mac))


def octets(mac: str) -> bytes:
    """Return the six bytes of a MAC such as 52:54:00:00:00:01."""
    return bytes.fromhex(mac.replace(":", ""))


def _info(kind: str, data: bytes) -> bytes:
    body = attribute(IFLA_INFO_KIND, kind.encode()) + attribute(IFLA_INFO_DATA, data)
    return attribute(IFLA_LINKINFO, body)
