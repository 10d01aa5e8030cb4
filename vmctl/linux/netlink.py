"""The kernel's protocol for network configuration: the part that a bridge, its ports and addresses need.

A request is one message. `apply` sends a list of them in one system call and reads one answer for each. This takes
some tens of microseconds. Starting `ip` takes milliseconds, which would be half of a container's start.
Sources: netlink(7), rtnetlink(7), <linux/if_link.h>, <linux/neighbour.h>.
"""

from __future__ import annotations

import os
import struct
from _socket import AF_INET, AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, inet_aton, socket

from vmctl import trace

RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH, RTM_DELNEIGH = 16, 17, 20, 24, 28, 29
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
NLMSG_ERROR = 2
NETLINK_ROUTE = 0
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_PID = 1, 3, 10, 18, 19
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING = 1, 5, 23
IFA_ADDRESS, IFA_LOCAL, NDA_DST, NDA_LLADDR, RTA_GATEWAY, RTA_OIF = 1, 2, 1, 2, 5, 4
NUD_PERMANENT, RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST, IFF_UP = 0x80, 254, 3, 1, 0x1

_NLMSGHDR = struct.Struct("=IHHII")
_RTATTR = struct.Struct("=HH")


class Request:
    """One message without its header, and the command that does the same, for errors and the trace."""

    def __init__(self, kind: int, flags: int, body: bytes, command: str) -> None:
        self.kind = kind
        self.flags = flags | NLM_F_REQUEST | NLM_F_ACK
        self.body = body
        self.command = command


class Connection:
    """A socket for requests; they are executed in the network namespace in which it was made."""

    def __init__(self) -> None:
        """Open it in the network namespace of this thread. Raises OSError."""
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
        self._sent = 0

    def apply(self, *requests: Request) -> None:
        """Execute requests. Raises OSError for the first that is refused; those after it are executed all the same."""
        first = self._sent
        self._sent += len(requests)
        messages = (
            _NLMSGHDR.pack(_NLMSGHDR.size + len(request.body), request.kind, request.flags, number, 0) + request.body
            for number, request in enumerate(requests, first)
        )
        self._socket.send(b"".join(messages))
        answers = [self._errno(number) for number in range(first, self._sent)]
        for request, code in zip(requests, answers, strict=True):
            if code:
                raise OSError(code, f"`{request.command}`: {os.strerror(code)}")
            if trace.on:
                trace.step(request.command)

    def _errno(self, number: int) -> int:
        """Return the error of a request, 0 for success."""
        while True:
            answer = self._socket.recv(8192)
            _, kind, _, answered, _ = _NLMSGHDR.unpack_from(answer)
            if answered == number:  # else it belongs to a request whose `apply` was interrupted by a signal
                code: int = struct.unpack_from("=i", answer, _NLMSGHDR.size)[0] if kind == NLMSG_ERROR else 0
                return -code

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def apply(*requests: Request) -> None:
    """Execute requests in the network namespace of this thread. Raises OSError for the first that is refused."""
    connection = Connection()
    try:
        connection.apply(*requests)
    finally:
        connection.close()


def new_bridge(name: str, index: int, mac: str) -> Request:
    """Create a bridge that forwards at once: no spanning tree, no forward delay, no multicast snooping."""
    options = (
        _attribute(IFLA_BR_FORWARD_DELAY, struct.pack("=I", 0)),
        _attribute(IFLA_BR_STP_STATE, struct.pack("=I", 0)),
        _attribute(IFLA_BR_MCAST_SNOOPING, b"\0"),
    )
    body = _ifinfomsg(index, IFF_UP) + _name(name) + _mac(mac) + _info("bridge", b"".join(options))
    plain = "forward_delay 0 stp_state 0 mcast_snooping 0"
    command = f"ip link add {name} index {index} address {mac} up type bridge {plain}"
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, command)


def new_veth(name: str, master: int, peer: str, peer_mac: str, peer_pid: int) -> Request:
    """Create a veth pair: one end here on the bridge `master`, the other in the namespace of a process.

    The other end is created in that namespace. Moving a link there would wait for every reader in the kernel.
    """
    other = _ifinfomsg() + _name(peer) + _mac(peer_mac) + _attribute(IFLA_NET_NS_PID, struct.pack("=I", peer_pid))
    body = _ifinfomsg(0, IFF_UP) + _name(name) + _master(master) + _info("veth", _attribute(VETH_INFO_PEER, other))
    command = f"ip link add {name} up master if{master} type veth peer name {peer} address {peer_mac} netns {peer_pid}"
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, command)


def set_up(name: str, master: int | None = None) -> Request:
    """Set a link up; with `master`, make it a port of that bridge first."""
    body = _ifinfomsg(0, IFF_UP) + _name(name) + (_master(master) if master else b"")
    return Request(RTM_NEWLINK, 0, body, f"ip link set {name} up{f' master if{master}' if master else ''}")


def delete_link(name: str) -> Request:
    """Remove a link; the other end of a veth pair is removed with it."""
    return Request(RTM_DELLINK, 0, _ifinfomsg() + _name(name), f"ip link del {name}")


def new_address(index: int, address: str, prefix: int) -> Request:
    """Add an IPv4 address to a link; the kernel adds the route to its network."""
    raw = inet_aton(address)
    body = struct.pack("=BBBBI", AF_INET, prefix, 0, 0, index) + _attribute(IFA_LOCAL, raw)
    command = f"ip address add {address}/{prefix} dev if{index}"
    return Request(RTM_NEWADDR, NLM_F_CREATE, body + _attribute(IFA_ADDRESS, raw), command)


def default_route(index: int, gateway: str) -> Request:
    """Add a default route."""
    header = struct.pack("=BBBBBBBBI", AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0)
    body = header + _attribute(RTA_GATEWAY, inet_aton(gateway)) + _attribute(RTA_OIF, struct.pack("=I", index))
    return Request(RTM_NEWROUTE, NLM_F_CREATE, body, f"ip route add default via {gateway} dev if{index}")


def new_neighbour(index: int, address: str, mac: str) -> Request:
    """Add a permanent neighbour entry: no ARP request is sent, so nothing waits for ARP's retry after 1 s."""
    body = _ndmsg(index) + _attribute(NDA_DST, inet_aton(address)) + _attribute(NDA_LLADDR, _octets(mac))
    command = f"ip neigh replace {address} lladdr {mac} dev if{index}"
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, command)


def delete_neighbour(index: int, address: str) -> Request:
    """Remove a permanent neighbour entry."""
    body = _ndmsg(index) + _attribute(NDA_DST, inet_aton(address))
    return Request(RTM_DELNEIGH, 0, body, f"ip neigh del {address} dev if{index}")


def _attribute(kind: int, payload: bytes) -> bytes:
    size = _RTATTR.size + len(payload)
    return _RTATTR.pack(size, kind) + payload + bytes(-size % 4)


def _ifinfomsg(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BBHiII", 0, 0, 0, index, flags, flags)


def _ndmsg(index: int) -> bytes:
    return struct.pack("=BBHiHBB", AF_INET, 0, 0, index, NUD_PERMANENT, 0, 0)


def _name(name: str) -> bytes:
    return _attribute(IFLA_IFNAME, name.encode() + b"\0")


def _master(index: int) -> bytes:
    return _attribute(IFLA_MASTER, struct.pack("=I", index))


def _mac(mac: str) -> bytes:
    return _attribute(IFLA_ADDRESS, _octets(mac))


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _info(kind: str, data: bytes) -> bytes:
    body = _attribute(IFLA_INFO_KIND, kind.encode()) + _attribute(IFLA_INFO_DATA, data)
    return _attribute(IFLA_LINKINFO, body)
