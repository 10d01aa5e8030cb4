"""An instance and its place in a network: the network itself knows no instances."""

from __future__ import annotations

from vmctl.instance import Instance
from vmctl.named import TYPE_CHECKING
from vmctl.net.network import Owner, network_of

if TYPE_CHECKING:
    from vmctl.net.network import Link


def attach(inst: Instance) -> Link | None:
    """Give the instance a place in the network that its workload asks for, None if it asks for none; repeatable.

    Sets `inst.state.address` and `inst.state.mac`. Raises UnavailableError, ConflictError.
    """
    network = network_of(inst.work.network)
    if network is None:
        return None
    link = network.attach(owner(inst), inst.journal, inst.state.address)
    inst.state.address, inst.state.mac = link.address, link.mac
    return link


def owner(inst: Instance) -> Owner:
    """Return what a network knows of an instance."""
    return Owner(inst.name, inst.state.id, inst.directory)
