"""The name server of one instance: it knows the names in each of its networks, and answers this instance only.

The name server of a network knows nothing of others and asks those of the host, and a resolver asks only one of its
servers about a name that the first has answered. So an instance that is in several networks, or asks for certain name
servers, gets one more address in its first network, at which a name server reads the files of all its networks. Nobody
else in the network reaches that address.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl.errors import UnavailableError
from vmctl.linux import netlink
from vmctl.named import TYPE_CHECKING
from vmctl.net import apart, names, resolver, switch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmctl.journal import Journal
    from vmctl.net import Link, Owner
    from vmctl.net.bridge import BridgeNetwork

# files in the server's folder: the address of its instance; the networks that it knows and the servers that it asks
_CLIENT, _SERVED = "client", "served"


def serve(
    network: BridgeNetwork,
    owner: Owner,
    journal: Journal,
    links: tuple[Link, ...],
    held: str | None,
    servers: Sequence[str],
) -> str:
    """Have a name server for the places of an instance, whose first network is `network`, and return its address.

    `held` is the address that an earlier call has returned. The server asks `servers` about names that it does not
    know. Empty if no name server is installed. Raises ConflictError if every address is in use, UnavailableError.
    """
    if resolver.missing():
        return ""
    with switch.locked() as folder:
        is_held = held is not None and switch.holds(folder, held, owner.directory)
        address = held if held and is_held else network.subnet.last_free(switch.used(folder))
        if not is_held:
            journal.record("link", address=address, device=f"vm{owner.id}n", **network.entry())
        try:
            _open(network, address, links, servers)
        except OSError as error:
            raise UnavailableError(f"the name server of {owner.name} cannot be started: {error}") from error
        if not is_held:
            switch.take(folder, address, owner.directory)
    return address


def _open(network: BridgeNetwork, address: str, links: tuple[Link, ...], servers: Sequence[str]) -> None:
    place, client = names.folder(address), links[0].address
    os.makedirs(place, mode=0o700, exist_ok=True)
    served = "\n".join((*(link.network.name for link in links), *servers))
    if (last := _read(place, _SERVED)) != served:  # a server that runs is of a start with others
        _ask_no_more(place, last)
        resolver.end(place)
    for name, text in ((_CLIENT, client), (_SERVED, served)):
        with open(os.path.join(place, name), "w", encoding="ascii") as file:
            file.write(text)
    with suppress(FileExistsError):
        switch.apply(netlink.new_address(network.index, address, 32))
    switch.apply(apart.let_ask(client, address))
    resolver.serve(place, [names.known(link.network.name) for link in links], address, servers)


def _read(place: str, name: str) -> str:
    with suppress(FileNotFoundError), open(os.path.join(place, name), encoding="ascii") as file:
        return file.read()
    return ""


def _ask_no_more(place: str, served: str) -> None:
    """Take from a name server the right to ask others, before its user is given back."""
    if served:
        from vmctl.net import lookups

        lookups.let_ask_no_more(place, served.split("\n"))


def end(network: BridgeNetwork, address: str) -> None:
    """End the name server at an address, if one is there; the caller has the lock."""
    place = names.folder(address)
    if not os.path.isdir(place):
        return
    if client := _read(place, _CLIENT):
        switch.delete(apart.let_ask_no_more(client, address))
    _ask_no_more(place, _read(place, _SERVED))
    switch.delete(netlink.delete_address(network.index, address, 32))
    names.clear(address)
