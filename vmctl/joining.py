"""Connect an instance with a network, or disconnect it, for its later starts.

Only one that does not run: what it knows of its networks (name server, names, interfaces) is made at its start.
"""

from __future__ import annotations

from contextlib import contextmanager

from vmctl import backends, engine, net
from vmctl.errors import ConflictError, NotFoundError, StateError, UnavailableError
from vmctl.instances.instance import WORKLOAD, Instance
from vmctl.linux import filetree
from vmctl.named import TYPE_CHECKING
from vmctl.net import bridge
from vmctl.spec import networking, rules
from vmctl.spec.workload import Joined, NetworkOptions, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def connect(inst: Instance, network: str, aliases: Sequence[str] = (), address: str | None = None) -> None:
    """Add a network to those of an instance.

    Raises ConflictError if it is in it already, SpecError and NotFoundError for what cannot be, StateError if it runs.
    """
    with _changeable(inst):
        joined = _joined(inst.work)
        if any(one.name == network for one in joined):
            raise ConflictError(f"{inst.name} is in the network {network} already", hint=f"`vmctl inspect {inst.name}`")
        work = _with(inst.work, (*joined, Joined(network, tuple(aliases), address)))
        for error in net.refusals(work):
            raise error
        filetree.write_atomic(inst.path(WORKLOAD), work.to_json())


def disconnect(inst: Instance, network: str) -> None:
    """Take a network from those of an instance; without any its network is `none`.

    Raises NotFoundError if it is not in that network, StateError if it runs, ConflictError if it needs it.
    """
    with _changeable(inst):
        joined = _joined(inst.work)
        left = tuple(one for one in joined if one.name != network)
        if left == joined:
            raise NotFoundError(f"{inst.name} is not in the network {network}", hint=f"`vmctl inspect {inst.name}`")
        if not left and inst.work.egress() != "all":
            raise ConflictError(
                f"{network} is the last network of {inst.name}, whose egress rules would be lost with it",
                hint="connect it with another network first",
            )
        work = _with(inst.work, left)
        filetree.write_atomic(inst.path(WORKLOAD), work.to_json())
        _give_back(inst)
        kept = {one.name for one in left}
        inst.state.links = {name: address for name, address in inst.state.links.items() if name in kept}
        inst.state.address = inst.state.links.get(left[0].name) if left else None
        inst.save()


def _give_back(inst: Instance) -> None:
    """Give back all places: the interfaces have other numbers now. The next start asks for the same addresses."""
    for entry in inst.journal.entries():
        if entry["kind"] == "link":
            bridge.undo(inst.directory, entry)
            inst.journal.strike(**entry)


@contextmanager
def _changeable(inst: Instance) -> Iterator[None]:
    backend = backends.load(inst.state.mode, inst.state.options)
    if not backend.features.own_network or inst.work.network == "host":
        raise UnavailableError(
            f"{inst.name} has the host's network, and no other",
            hint="`vmctl run --network NAME` makes one in a network",
        )
    with inst.locked():
        if (found := engine.status(inst, backend)) in engine.ALIVE:
            raise StateError(
                f"{inst.name} is {found}: a running instance keeps its networks",
                hint=f"`vmctl stop {inst.name}`, then change its networks, then `vmctl start {inst.name}`",
            )
        yield


def _joined(work: Workload) -> tuple[Joined, ...]:
    if isinstance(work.network, str):
        return () if work.network == "none" else (Joined(work.network),)
    return work.network.networks


def _with(work: Workload, joined: tuple[Joined, ...]) -> Workload:
    """Return a workload with other networks. Raises SpecError."""
    options = NetworkOptions() if isinstance(work.network, str) else work.network
    network = networking.normalized(options._replace(networks=joined)) if joined else "none"
    changed = work._replace(network=network)
    rules.check(changed)
    return changed
