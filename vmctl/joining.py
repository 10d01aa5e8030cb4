"""Connect an instance with a network, or disconnect it: for its later starts, and a running container at once.

Its name server and its way out are made at its start. So a running container keeps its first network, and knows the
names in one that was added from its next start on; those there know it at once. A guest has its interfaces from its
start.
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

    Raises ConflictError if it is in it already, SpecError and NotFoundError for what cannot be, StateError if it runs
    and has to be stopped for it.
    """
    with _changeable(inst) as pid:
        joined = _joined(inst.work)
        if any(one.name == network for one in joined):
            hint = f"`vmctl stop {inst.name}`, then disconnect it, to connect it otherwise" if pid else ""
            raise ConflictError(
                f"{inst.name} is in the network {network} already", hint=hint or f"`vmctl inspect {inst.name}`"
            )
        added = Joined(network, tuple(aliases), address)
        work = _with(inst.work, (*joined, added))
        for error in net.refusals(work):
            raise error
        if pid is not None:
            from vmctl.net import hotplug

            link = hotplug.connect(work, inst, inst.journal, added, len(joined), pid)
            inst.state.links[network] = link.address
            inst.save()
        filetree.write_atomic(inst.path(WORKLOAD), work.to_json())


def disconnect(inst: Instance, network: str) -> None:
    """Take a network from those of an instance; without any its network is `none`.

    Raises NotFoundError if it is not in that network, StateError if it runs and has to be stopped for it, ConflictError
    if it needs it.
    """
    with _changeable(inst) as pid:
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
        if pid is not None:
            _unplug(inst, network, is_last=left == joined[:-1])
            filetree.write_atomic(inst.path(WORKLOAD), work.to_json())
            return
        filetree.write_atomic(inst.path(WORKLOAD), work.to_json())
        _give_back(inst)
        kept = {one.name for one in left}
        inst.state.links = {name: address for name, address in inst.state.links.items() if name in kept}
        inst.state.address = inst.state.links.get(left[0].name) if left else None
        inst.save()


def _unplug(inst: Instance, network: str, *, is_last: bool) -> None:
    """Take the network that was connected last from a running container; the other interfaces keep their numbers."""
    if not is_last or len(_joined(inst.work)) == 1:
        raise _keeps(inst, "of a running instance only the network that was connected last can be taken away")
    from vmctl.net import hotplug

    hotplug.disconnect(inst, inst.journal, inst.state.links[network])
    del inst.state.links[network]
    inst.save()


def _keeps(inst: Instance, why: str) -> StateError:
    hint = f"`vmctl stop {inst.name}`, then change its networks, then `vmctl start {inst.name}`"
    return StateError(f"{inst.name} keeps its networks: {why}", hint=hint)


def _give_back(inst: Instance) -> None:
    """Give back all places: the interfaces have other numbers now. The next start asks for the same addresses."""
    for entry in inst.journal.entries():
        if entry["kind"] == "link":
            bridge.undo(inst.directory, entry)
            inst.journal.strike(**entry)


@contextmanager
def _changeable(inst: Instance) -> Iterator[int | None]:
    """Yield the first process of a container that runs, None if the instance does not run."""
    backend = backends.load(inst.state.mode, inst.state.options)
    if not backend.features.own_network or inst.work.network == "host":
        raise UnavailableError(
            f"{inst.name} has the host's network, and no other",
            hint="`vmctl run --network NAME` makes one in a network",
        )
    if name := rules.neighbour(inst.work):
        raise UnavailableError(
            f"{inst.name} is in the networks of {name}, and no other", hint=f"connect {name} instead"
        )
    with inst.locked():
        found = engine.status(inst, backend)
        if found not in engine.ALIVE:
            yield None
            return
        if backend.features.own_kernel:
            raise _keeps(inst, f"it is {found}, and a guest has its interfaces from its start")
        if found != "running" or inst.state.pid is None or not inst.state.links:
            raise _keeps(inst, f"it is {found}" + ("" if inst.state.links else " without a network"))
        yield inst.state.pid


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
