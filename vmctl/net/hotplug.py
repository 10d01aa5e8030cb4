"""A running container gets one more place in a network, or loses it; its name server and its way out stay."""

from __future__ import annotations

import os

from vmctl import net
from vmctl.errors import NotFoundError, UnavailableError
from vmctl.linux import syscalls
from vmctl.linux.threads import in_thread
from vmctl.named import TYPE_CHECKING
from vmctl.net import bridge, leaving

if TYPE_CHECKING:
    from vmctl.journal import Journal
    from vmctl.net import Link, Network, Owner
    from vmctl.spec.workload import Joined, Workload


def connect(work: Workload, owner: Owner, journal: Journal, one: Joined, number: int, pid: int) -> Link:
    """Return a new place in a network, as interface `number` of the network namespace of `pid`; whole or not at all.

    Raises the errors of `Network.attach` and `Network.plug`.
    """
    network = net.network_of(one.name)
    assert network is not None  # neither `none` nor `host`
    link = network.attach(owner, journal, None, net.wish_of(work, owner, number, one))._replace(gateway="")
    try:
        leaving.apply(work, (link,), is_own=False)  # nothing leaves from there, as with every place but the first
        network.plug(link, pid)
        _configure(network, link, pid)
    except BaseException:
        disconnect(owner, journal, link.address)
        raise
    return link


def _configure(network: Network, link: Link, pid: int) -> None:
    def inside() -> None:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(fd)
        network.configure_inside(link)

    try:
        in_thread(inside)
    except OSError as error:
        raise UnavailableError(
            f"the interface {link.inside} of {link.owner} cannot be configured: {error.strerror or error}",
            hint="the workload may have changed it meanwhile, or ended",
        ) from error


def disconnect(owner: Owner, journal: Journal, address: str) -> None:
    """Take away the place with this address; its interface vanishes. Raises NotFoundError."""
    for entry in journal.entries():
        if entry["kind"] == "link" and entry["address"] == address:
            bridge.undo(owner.directory, entry)
            journal.strike(**entry)
            return
    raise NotFoundError(f"{owner.name} has no address {address}")
