"""The places of an instance in its networks: those that it had, and the record of those that it has got."""

from __future__ import annotations

from vmctl import net
from vmctl.instances.instance import Instance
from vmctl.net import Link


def take(inst: Instance) -> tuple[Link, ...]:
    """Return the places of an instance in the networks of its workload, the same as at its last start if possible.

    They are recorded in its state. Raises the errors of `Network.attach`.
    """
    state = inst.state
    held = state.links or ({"bridge": state.address} if state.address else {})
    held = {name: address for name, address in held.items() if isinstance(address, str)}
    links = net.attach(inst.work, inst, inst.journal, held)
    state.links = {link.network.called: link.address for link in links}
    if net.has_own_server(inst.work, links) and links[0].resolver:
        state.links[""] = links[0].resolver  # of its name server
    if links:
        state.address, state.mac = links[0].address, links[0].mac
        state.warnings += net.warnings(inst.work, links)
    return links
