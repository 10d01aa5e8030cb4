"""The name server of an instance in several networks: it knows the names in each, and answers this instance only.

The name server of a network knows nothing of others, and a resolver asks only one of its servers about a name that the
first has answered. So such an instance gets one more address in its first network, at which a name server reads the
files of all its networks. Nobody else in the network reaches that address.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl.errors import UnavailableError
from vmctl.linux import netlink
from vmctl.named import TYPE_CHECKING
from vmctl.net import apart, names, resolver, switch
from vmctl.net.guard import DNS

if TYPE_CHECKING:
    from vmctl.journal import Journal
    from vmctl.net import Link, Owner
    from vmctl.net.bridge import BridgeNetwork

_CLIENT = "client"  # file in the server's folder: the address of its instance


def serve(
    network: BridgeNetwork,
    owner: Owner,
    journal: Journal,
    links: tuple[Link, ...],
    held: str | None,
    is_free: bool,
) -> str:
    """Have a name server for the places of an instance, whose first network is `network`, and return its address.

    `held` is the address that an earlier call has returned. Unless the instance `is_free` to reach everything, the
    server knows no names but those. Empty if no name server is installed. Raises ConflictError if every address is in
    use, UnavailableError.
    """
    if resolver.missing():
        return ""
    with switch.locked() as folder:
        is_held = held is not None and switch.holds(folder, held, owner.directory)
        address = held if held and is_held else network.subnet.last_free(switch.used(folder))
        if not is_held:
            journal.record("link", address=address, device=f"vm{owner.id}n", **network.entry())
        try:
            _open(network, address, links, None if is_free else DNS)
        except OSError as error:
            raise UnavailableError(f"the name server of {owner.name} cannot be started: {error}") from error
        if not is_held:
            switch.take(folder, address, owner.directory)
    return address


def _open(network: BridgeNetwork, address: str, links: tuple[Link, ...], closed_port: int | None) -> None:
    place, client = names.folder(address), links[0].address
    os.makedirs(place, mode=0o700, exist_ok=True)
    with open(os.path.join(place, _CLIENT), "w", encoding="ascii") as file:
        file.write(client)
    with suppress(FileExistsError):
        switch.apply(netlink.new_address(network.index, address, 32))
    switch.apply(apart.let_ask(client, address))
    resolver.serve(place, [names.known(link.network.name) for link in links], address, closed_port)


def end(network: BridgeNetwork, address: str) -> None:
    """End the name server at an address, if one is there; the caller has the lock."""
    place = names.folder(address)
    if not os.path.isdir(place):
        return
    with suppress(FileNotFoundError), open(os.path.join(place, _CLIENT), encoding="ascii") as file:
        client = file.read()
        if client:
            switch.delete(apart.let_ask_no_more(client, address))
    switch.delete(netlink.delete_address(network.index, address, 32))
    names.clear(address)
