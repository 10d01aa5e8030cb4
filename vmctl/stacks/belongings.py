"""The networks and volumes of a stack on this host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from vmctl.errors import ConflictError, NotFoundError, StateError, VmctlError
from vmctl.named import TYPE_CHECKING
from vmctl.net import STACK
from vmctl.stacks.item import Place
from vmctl.stacks.stack import Network, Volume

if TYPE_CHECKING:
    from vmctl.networks import Seen


def make(stack: str, nets: Mapping[str, Network], volumes: Mapping[str, Volume]) -> list[str]:
    """Make the networks and volumes that are not there yet; return the names of the new volumes.

    Raises the error of an external one that is not there, and of a name or subnet that something else has.
    """
    if not nets and not volumes:
        return []
    from vmctl import networks
    from vmctl.volumes import store

    known = {seen.name: seen for seen in networks.survey()}
    for network in nets.values():
        if network.external:
            if network.name not in known:
                raise _located(network.place, NotFoundError(f"there is no network {network.name}"), "network")
        elif network.name in known:
            _compare(stack, network, known[network.name])
        else:
            _make_network(network)
    there = store.names()
    for volume in volumes.values():
        if volume.external and volume.name not in there:
            raise _located(volume.place, NotFoundError(f"there is no volume {volume.name}"), "volume")
    new = [volume for volume in volumes.values() if volume.name not in there]
    for volume in new:
        store.create(volume.name, volume.labels)
    return [volume.name for volume in new]


def _located(place: Place, error: VmctlError, kind: str = "") -> VmctlError:
    text = str(place.error(str(error)))
    name = str(error).rpartition(" ")[2]
    error.args = (text,)
    error.hint = error.hint or (f"vmctl {kind} create {name}" if kind else "")
    return error


def _make_network(network: Network) -> None:
    from vmctl import networks

    try:
        networks.create(network.name, network.subnet or None, internal=network.internal, labels=network.labels)
    except VmctlError as error:
        raise _located(network.place, error) from None


def _compare(stack: str, network: Network, there: Seen) -> None:
    """Raise ConflictError if a network of this name is not what the stack describes."""
    record = there.record
    if record is None:
        raise VmctlError(there.reason)
    if record.labels.get(STACK) != stack:
        raise _located(
            network.place, ConflictError(f"the network {network.name} is not of this stack", hint="external: true")
        )
    if (network.subnet and network.subnet != record.subnet) or network.internal != record.internal:
        raise _located(
            network.place,
            ConflictError(f"the network {network.name} is different by now", hint=f"`vmctl down {stack}` removes it"),
        )


def remove(names: tuple[str, ...]) -> list[str]:
    """Remove networks; return those that other instances use. It is not an error if they are gone."""
    if not names:
        return []
    from vmctl import networks

    left = []
    for name in names:
        try:
            networks.remove(name)
        except NotFoundError:
            continue
        except ConflictError:
            left.append(name)
    return left


def remove_volumes(names: Sequence[str]) -> None:
    """Remove volumes with their files, if they are still there and no other instance uses them."""
    if not names:
        return
    from vmctl.volumes import store

    for name in names:
        with suppress(NotFoundError, StateError):
            store.remove(name)


def has_volume(name: str) -> bool:
    """Return whether there is a volume of this name."""
    from vmctl.volumes import store

    return name in store.names()
