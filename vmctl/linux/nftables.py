"""Requests for the kernel's packet filter, as netlink messages: `nft` itself takes 20 to 190 ms to start.

A table is of a family: `bridge` for frames on bridges, `ip` for the IPv4 packets of a network namespace. A rule is a
list of expressions, each of which loads bytes of the frame into a register or compares a register. A load beyond the
end of a frame ends the rule without a match. Sources: nft(8), <linux/netfilter/nf_tables.h>,
<linux/netfilter/nfnetlink.h>.
"""

from __future__ import annotations

import struct

from vmctl.linux.netlink import NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL, Filter, Request, attribute

NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_DELRULE = 0, 3, 6, 8
NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM = 9, 12, 14
FIRST, DESTINATION, FILTER, SOURCE = -300, -100, 0, 100  # priorities: NF_IP_PRI_NAT_DST, ..., NF_IP_PRI_NAT_SRC
# Of a bridge: frames that enter it by a port, before it learns their source, and this namespace's own frames. Of ip:
# packets for this namespace, and those that it passes on from one of its interfaces to another.
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}  # NF_BR_..., NF_INET_...
_VERDICTS = {"drop": 0, "accept": 1}
LINK, NETWORK, TRANSPORT = 0, 1, 2  # the headers to which offsets are relative
EQUAL, UNEQUAL, AT_MOST, AT_LEAST = 0, 1, 3, 5
_NFT_META_IIFNAME, _NFT_META_OIFNAME, _NFT_META_SKUID, _NFT_META_L4PROTO, _NFT_REG32_00 = 6, 7, 10, 16, 8
_NFT_REG_VERDICT, _NFT_CT_STATE, _NFT_JUMP, _NFT_DATA_VERDICT = 0, 0, -3, 0xFFFFFF00
_NFT_SET_INTERVAL, _NFT_SET_MAP, _NFT_SET_ELEM_INTERVAL_END = 0x4, 0x8, 0x1
_ESTABLISHED, _RELATED = 0x2, 0x4  # NF_CT_STATE_BIT
_ICMP_UNREACHABLE, _ICMP_FILTERED = 0, 13  # NFT_REJECT_ICMP_UNREACH, ICMP_PKT_FILTERED
_NLM_F_APPEND = 0x800
# Types of keys: the number by which nft(8) knows them, which the kernel only keeps, and their size in bytes.
_TYPES = {"ifname": (41, 16), "ether_addr": (9, 6), "ipv4_addr": (7, 4), "uid": (24, 4)}
_HOST_ORDER = struct.pack("=BBI", 0, 4, 1)  # nft(8) would show the names in a set of nothing else backwards
_FAMILIES = {"bridge": 7, "ip": 2}  # NFPROTO_BRIDGE, NFPROTO_IPV4


def new_table(table: str, family: str = "bridge") -> Request:
    """Create a table."""
    return _request(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, _text(1, table), "add table", family, table)


def new_set(table: str, name: str, *types: str, family: str = "bridge") -> Request:
    """Create a set; a key has these types one after the other, each filled up with zeros to a multiple of 4 bytes."""
    number = size_bytes = 0
    for number_of_type, bytes_of_type in (_TYPES[name] for name in types):
        number = number << 6 | number_of_type
        size_bytes += bytes_of_type + -bytes_of_type % 4
    body = _text(1, table) + _text(2, name) + _number(3, 0) + _number(4, number) + _number(5, size_bytes)
    if types == ("ifname",):
        body += attribute(13, _HOST_ORDER)
    words = f"{table} {name} '{{ type {' . '.join(types)}; }}'"
    return _request(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL, body + _number(10, 1), "add set", family, words)


def new_chain(
    table: str,
    name: str,
    hook: str,
    policy: str,
    family: str = "bridge",
    *,
    kind: str = "filter",
    priority: int = FIRST,
) -> Request:
    """Create the chain that frames pass at a hook; `policy` is the verdict for those for which no rule has one."""
    place = _nested(4, _number(1, _HOOKS[hook]) + _number(2, priority))
    body = _text(1, table) + _text(3, name) + place + _number(5, _VERDICTS[policy]) + _text(7, kind)
    words = f"{table} {name} '{{ type {kind} hook {hook} priority {priority}; policy {policy}; }}'"
    return _request(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, body, "add chain", family, words)


def new_rule(table: str, chain: str, expressions: list[bytes], words: str, family: str = "bridge") -> Request:
    """Append a rule; `words` are the same rule for nft(8)."""
    body = _text(1, table) + _text(2, chain) + _nested(4, b"".join(expressions))
    return _request(NFT_MSG_NEWRULE, NLM_F_CREATE | _NLM_F_APPEND, body, "add rule", family, f"{table} {chain} {words}")


def new_ranges(table: str, name: str, family: str) -> Request:
    """Create a set of ranges of IPv4 addresses."""
    kind, size_bytes = _TYPES["ipv4_addr"]
    body = _text(1, table) + _text(2, name) + _number(3, _NFT_SET_INTERVAL) + _number(4, kind) + _number(5, size_bytes)
    words = f"{table} {name} '{{ type ipv4_addr; flags interval; }}'"
    return _request(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL, body + _number(10, 1), "add set", family, words)


def new_jumps(table: str, name: str, family: str) -> Request:
    """Create a map from IPv4 addresses to chains."""
    kind, size_bytes = _TYPES["ipv4_addr"]
    body = _text(1, table) + _text(2, name) + _number(3, _NFT_SET_MAP) + _number(4, kind) + _number(5, size_bytes)
    body += _number(6, _NFT_DATA_VERDICT) + _number(10, 1)
    words = f"{table} {name} '{{ type ipv4_addr : verdict; }}'"
    return _request(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL, body, "add map", family, words)


def new_target(table: str, name: str, family: str) -> Request:
    """Create a chain to which a map leads, unless it exists."""
    body = _text(1, table) + _text(3, name)
    return _request(NFT_MSG_NEWCHAIN, NLM_F_CREATE, body, "add chain", family, f"{table} {name}")


def empty_chain(table: str, name: str, family: str) -> Request:
    """Remove all rules of a chain."""
    return _request(NFT_MSG_DELRULE, 0, _text(1, table) + _text(2, name), "flush chain", family, f"{table} {name}")


def new_element(table: str, name: str, key: bytes, words: str, family: str = "bridge") -> Request:
    """Add a key to a set, unless it is in it."""
    body = _element(table, name, key)
    return _request(NFT_MSG_NEWSETELEM, NLM_F_CREATE, body, "add element", family, f"{table} {name} {words}")


def delete_element(table: str, name: str, key: bytes, words: str, family: str = "bridge") -> Request:
    """Remove a key from a set."""
    body = _element(table, name, key)
    return _request(NFT_MSG_DELSETELEM, 0, body, "delete element", family, f"{table} {name} {words}")


def new_range(table: str, name: str, first: bytes, after: bytes, words: str, family: str) -> Request:
    """Add the keys from `first` to below `after` to a set of ranges."""
    end = _nested(1, _nested(1, attribute(1, after)) + _number(3, _NFT_SET_ELEM_INTERVAL_END))
    elements = _nested(1, _nested(1, attribute(1, first))) + end
    body = _text(1, table) + _text(2, name) + _nested(3, elements)
    return _request(NFT_MSG_NEWSETELEM, NLM_F_CREATE, body, "add element", family, f"{table} {name} '{{ {words} }}'")


def new_jump(table: str, name: str, key: bytes, chain: str, words: str, family: str) -> Request:
    """Have a map lead from a key to a chain, unless it does."""
    target = _nested(2, _nested(2, _number(1, _NFT_JUMP) + _text(2, chain)))
    body = _text(1, table) + _text(2, name) + _nested(3, _nested(1, _nested(1, attribute(1, key)) + target))
    words = f"{table} {name} '{{ {words} : jump {chain} }}'"
    return _request(NFT_MSG_NEWSETELEM, NLM_F_CREATE, body, "add element", family, words)


def empty_set(table: str, name: str, family: str) -> Request:
    """Remove all keys of a set."""
    return _request(NFT_MSG_DELSETELEM, 0, _text(1, table) + _text(2, name), "flush set", family, f"{table} {name}")


def load(header: int, offset: int, size_bytes: int, word: int = 0) -> bytes:
    """Load bytes of a header of the frame, to register `word`, filled up with zeros to a multiple of 4 bytes."""
    data = _number(1, _NFT_REG32_00 + word) + _number(2, header) + _number(3, offset) + _number(4, size_bytes)
    return _expression("payload", data)


def load_input_name(word: int = 0) -> bytes:
    """Load the name of the port or interface that the frame has entered by: 16 bytes, filled up with zeros."""
    return _expression("meta", _number(1, _NFT_REG32_00 + word) + _number(2, _NFT_META_IIFNAME))


def load_output_name(word: int = 0) -> bytes:
    """Load the name of the interface by which the packet leaves, like `load_input_name`."""
    return _expression("meta", _number(1, _NFT_REG32_00 + word) + _number(2, _NFT_META_OIFNAME))


def load_user(word: int = 0) -> bytes:
    """Load the uid, in the order of the host's bytes, of who has made the socket from which the frame comes."""
    return _expression("meta", _number(1, _NFT_REG32_00 + word) + _number(2, _NFT_META_SKUID))


def load_protocol() -> bytes:
    """Load the number of the transport protocol, one byte."""
    return _expression("meta", _number(1, _NFT_REG32_00) + _number(2, _NFT_META_L4PROTO))


def belongs() -> list[bytes]:
    """Go on if the packet belongs to a connection with packets in both directions, or is about one."""
    mask, zero = struct.pack("=I", _ESTABLISHED | _RELATED), bytes(4)
    registers = _number(1, _NFT_REG32_00) + _number(2, _NFT_REG32_00) + _number(3, 4)
    only = registers + _nested(4, attribute(1, mask)) + _nested(5, attribute(1, zero))
    state = _expression("ct", _number(1, _NFT_REG32_00) + _number(2, _NFT_CT_STATE))
    return [state, _expression("bitwise", only), compare(zero, UNEQUAL)]


def compare(value: bytes, how: int = EQUAL) -> bytes:
    """Go on if the first register compares with a value in this way."""
    return _expression("cmp", _number(1, _NFT_REG32_00) + _number(2, how) + _nested(3, attribute(1, value)))


def in_set(name: str) -> bytes:
    """Go on if the bytes from the first register on are in a set."""
    return _expression("lookup", _text(1, name) + _number(2, _NFT_REG32_00))


def verdict(name: str) -> bytes:
    """End with this verdict: `accept` or `drop`."""
    return _expression("immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, _VERDICTS[name]))))


def jump_by(name: str) -> bytes:
    """Jump to the chain to which a map leads from the bytes in the first register, if they are in it."""
    return _expression("lookup", _text(1, name) + _number(2, _NFT_REG32_00) + _number(3, _NFT_REG_VERDICT))


def reject() -> bytes:
    """Drop the packet, and report to its sender that this is forbidden."""
    return _expression("reject", _number(1, _ICMP_UNREACHABLE) + attribute(2, bytes([_ICMP_FILTERED])))


def masquerade() -> bytes:
    """Replace the source of the packet by the address of the link by which it leaves."""
    return _expression("masq", b"")


def new_target_address(address: bytes) -> list[bytes]:
    """Replace the destination of the packet by an IPv4 address."""
    load_address = _expression("immediate", _number(1, _NFT_REG32_00) + _nested(2, attribute(1, address)))
    return [load_address, _expression("nat", _number(1, 1) + _number(2, _FAMILIES["ip"]) + _number(3, _NFT_REG32_00))]


def redirect(port: int) -> list[bytes]:
    """Deliver the packet to a port of this network namespace."""
    value = _nested(2, attribute(1, port.to_bytes(2, "big")))
    to = _expression("immediate", _number(1, _NFT_REG32_00) + value)
    return [to, _expression("redir", _number(1, _NFT_REG32_00))]


def _element(table: str, name: str, key: bytes) -> bytes:
    return _text(1, table) + _text(2, name) + _nested(3, _nested(1, _nested(1, attribute(1, key))))


def _expression(name: str, data: bytes) -> bytes:
    return _nested(1, _text(1, name) + _nested(2, data))


def _request(kind: int, flags: int, body: bytes, verb: str, family: str, words: str) -> Request:
    return Filter(kind, flags, _FAMILIES[family], body, f"nft {verb} {family} {words}")


def _nested(kind: int, content: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, content)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")
