"""Networks by name: one record each below the state root, and the default one, which needs none."""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import paths
from vmctl.errors import NotFoundError
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net.bridge import DEFAULT, MTU, BridgeNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping

_END = ".json"


class Record(NamedTuple):
    """What is recorded of a network: all that does not change."""

    subnet: str
    bridge: int  # index of the interface, and part of the names and numbers of its ports
    internal: bool = False
    mtu: int = MTU
    labels: Mapping[str, str] = {}
    created: float = 0.0  # seconds since the epoch


def folder() -> str:
    """Return the folder of the records; it is the lock for those who change them."""
    return os.path.join(paths.state_root(), "networks")


def path(name: str) -> str:
    """Return the file of a network's record."""
    return os.path.join(folder(), f"{name}{_END}")


def find(name: str) -> BridgeNetwork:
    """Return a network. Raises NotFoundError, and UnreadableError if its record is damaged."""
    return DEFAULT if name == DEFAULT.called else network(name, read(name))


def network(name: str, record: Record) -> BridgeNetwork:
    """Return the network of a record."""
    bridge = f"vmctl{record.bridge}"
    return BridgeNetwork(
        bridge, record.subnet, record.bridge, name, internal=record.internal, mtu=record.mtu, record=path(name)
    )


def read(name: str) -> Record:
    """Return the record of a network. Raises NotFoundError, UnreadableError."""
    from vmctl import records
    from vmctl.spec.rules import is_name

    what = f"the record of the network {name}"
    if not is_name(name):
        raise absent(name)
    try:
        values = records.checked_format(records.read(path(name), what), what)
    except FileNotFoundError:
        raise absent(name) from None
    found: Record = records.build(Record, values, what, {})
    if not (DEFAULT.index < found.bridge < LAST_INDEX and _is_subnet(found.subnet)):
        raise records.UnreadableError(f"{what} is damaged: {found.subnet[:40]} {found.bridge}")
    return found


LAST_INDEX = 1 << 14  # 16 bits below it are the number of a port, and an index has 31


def _is_subnet(text: str) -> bool:
    from vmctl.net import subnets

    try:
        subnets.parse(text)
    except ValueError:
        return False
    return True


def containing(address: str) -> BridgeNetwork:
    """Return the network whose subnet has the address, the default one if no other has it."""
    from vmctl.records import UnreadableError

    for name in names():
        with suppress(NotFoundError, UnreadableError):
            if address in (found := find(name)).subnet:
                return found
    return DEFAULT


def absent(name: str) -> NotFoundError:
    """Return the error for a name that no network has."""
    return NotFoundError(
        f"there is no network {name}", hint=f"`vmctl network create {name}` makes it, `vmctl network ls` lists them"
    )


def names() -> list[str]:
    """Return the names of all networks with a record, sorted."""
    try:
        return sorted(entry.removesuffix(_END) for entry in os.listdir(folder()) if entry.endswith(_END))
    except FileNotFoundError:
        return []
