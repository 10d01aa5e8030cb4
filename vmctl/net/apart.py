"""What keeps the networks apart: a table for the packets that the switch gets, or passes on, from its bridges.

A bridge is one network. The switch has an address on each, and may forward, so without this table an instance could
reach those of another network through it, and the name server of that network. The chains accept what does not come
from a bridge, and what goes neither to another one nor to the switch: that is decided elsewhere.
"""

from __future__ import annotations

from _socket import inet_aton

from vmctl.linux import nftables as nft
from vmctl.linux.netlink import Request

TABLE = "vmctl"
# sets of (bridge, address of the switch), (bridge, bridge), bridge, and (instance, address of its name server)
OWN, WITHIN, CLOSED, ASKING = "own", "within", "closed", "asking"
BRIDGES = "vmctl"  # how the name of each bridge begins


def table() -> tuple[Request, ...]:
    """Return the requests that make the table, with no network in it."""
    rules = [
        *(("reach", rule) for rule in (_own_address(), _asking(), _foreign_address())),
        *(("pass", rule) for rule in (_same_network(), _other_network(), _of_closed(), _to_closed())),
    ]
    return (
        nft.new_table(TABLE, "ip"),
        nft.new_set(TABLE, OWN, "ifname", "ipv4_addr", family="ip"),
        nft.new_set(TABLE, WITHIN, "ifname", "ifname", family="ip"),
        nft.new_set(TABLE, CLOSED, "ifname", family="ip"),
        nft.new_set(TABLE, ASKING, "ipv4_addr", "ipv4_addr", family="ip"),
        nft.new_chain(TABLE, "reach", "input", "accept", "ip"),
        nft.new_chain(TABLE, "pass", "forward", "accept", "ip"),
        *(nft.new_rule(TABLE, chain, expressions, words, "ip") for chain, (expressions, words) in rules),
    )


def open_network(bridge: str, address: str, *, closed: bool) -> tuple[Request, ...]:
    """Return the requests that let the instances of a bridge reach each other and its address.

    Those of a `closed` one reach nothing else, even if another table lets them out.
    """
    return tuple(nft.new_element(TABLE, *element, "ip") for element in _elements(bridge, address, closed))


def close_network(bridge: str, address: str, *, closed: bool) -> tuple[Request, ...]:
    """Return the requests that undo `open_network`; each fails with ENOENT if there is nothing to undo."""
    return tuple(nft.delete_element(TABLE, *element, "ip") for element in _elements(bridge, address, closed))


def let_ask(client: str, address: str) -> Request:
    """Return the request that lets one instance reach an address of the switch, besides that of its bridge."""
    return nft.new_element(TABLE, ASKING, *_pair(client, address), "ip")


def let_ask_no_more(client: str, address: str) -> Request:
    """Return the request that undoes `let_ask`; it fails with ENOENT if there is nothing to undo."""
    return nft.delete_element(TABLE, ASKING, *_pair(client, address), "ip")


def _pair(client: str, address: str) -> tuple[bytes, str]:
    return inet_aton(client) + inet_aton(address), f"'{{ {client} . {address} }}'"


def _elements(bridge: str, address: str, closed: bool) -> tuple[tuple[str, bytes, str], ...]:
    name = bridge.encode().ljust(16, b"\0")
    found = (
        (OWN, name + inet_aton(address), f"'{{ {bridge} . {address} }}'"),
        (WITHIN, name * 2, f"'{{ {bridge} . {bridge} }}'"),
    )
    return (*found, (CLOSED, name, f"'{{ {bridge} }}'")) if closed else found


def _own_address() -> tuple[list[bytes], str]:
    key = (nft.load_input_name(), nft.load(nft.NETWORK, 16, 4, 4), nft.in_set(OWN))
    return [*key, nft.verdict("accept")], f"iifname . ip daddr @{OWN} accept"


def _asking() -> tuple[list[bytes], str]:
    """Return the rule for name servers of one instance; guard.py has seen to it that the source is true."""
    key = (nft.load(nft.NETWORK, 12, 4), nft.load(nft.NETWORK, 16, 4, 1), nft.in_set(ASKING))
    return [*key, nft.verdict("accept")], f"ip saddr . ip daddr @{ASKING} accept"


def _foreign_address() -> tuple[list[bytes], str]:
    return [*_from_bridge(), nft.verdict("drop")], f'iifname "{BRIDGES}*" drop'


def _same_network() -> tuple[list[bytes], str]:
    """Return the rule for a host on which packets within a bridge pass here too (br_netfilter)."""
    key = (nft.load_input_name(), nft.load_output_name(4), nft.in_set(WITHIN))
    return [*key, nft.verdict("accept")], f"iifname . oifname @{WITHIN} accept"


def _other_network() -> tuple[list[bytes], str]:
    to_bridge = (nft.load_output_name(), nft.compare(BRIDGES.encode()))
    return [*_from_bridge(), *to_bridge, nft.verdict("drop")], f'iifname "{BRIDGES}*" oifname "{BRIDGES}*" drop'


def _of_closed() -> tuple[list[bytes], str]:
    return [nft.load_input_name(), nft.in_set(CLOSED), nft.verdict("drop")], f"iifname @{CLOSED} drop"


def _to_closed() -> tuple[list[bytes], str]:
    return [nft.load_output_name(), nft.in_set(CLOSED), nft.verdict("drop")], f"oifname @{CLOSED} drop"


def _from_bridge() -> tuple[bytes, bytes]:
    return nft.load_input_name(), nft.compare(BRIDGES.encode())
