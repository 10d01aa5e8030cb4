"""Networks by name: making, listing and removing them, with the instances that are in them."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from vmctl import records
from vmctl.errors import ConflictError, SpecError, VmctlError
from vmctl.instances import instance
from vmctl.linux import filetree
from vmctl.linux.locks import folder_locked
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net import catalog, subnets, switch
from vmctl.net.bridge import DEFAULT
from vmctl.net.catalog import Record
from vmctl.spec.networking import ALONE
from vmctl.spec.rules import is_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LEAST_MTU, MOST_MTU = 576, 65520


class Member(NamedTuple):
    """An instance of a network; its address is known once it was started."""

    name: str
    address: str | None
    aliases: tuple[str, ...]


class Seen(NamedTuple):
    """A network as found; `record` is None for one that cannot be read, and `reason` explains that."""

    name: str
    record: Record | None
    members: tuple[Member, ...]
    reason: str = ""

    @property
    def gateway(self) -> str | None:
        """The switch's address in the network."""
        return subnets.Subnet(self.record.subnet).gateway if self.record else None


def create(
    name: str,
    subnet: str | None = None,
    *,
    internal: bool = False,
    mtu: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Make a network. Raises SpecError for a value that cannot be used, ConflictError for one that is taken."""
    if not is_name(name) or name in ALONE:
        raise SpecError(
            f"the name {name[:80]!r} cannot be used for a network",
            hint="use up to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
        )
    if mtu is not None and not LEAST_MTU <= mtu <= MOST_MTU:
        raise SpecError(f"the MTU of a network is {LEAST_MTU} to {MOST_MTU} bytes, not {mtu}")
    with folder_locked(catalog.folder()):
        if name == DEFAULT.called or os.path.lexists(catalog.path(name)):
            raise ConflictError(f"there is a network {name} already", hint="`vmctl network ls` lists them")
        others = dict(_records())
        chosen = _subnet(subnet, others)
        used = {record.bridge for record in others.values()}
        index = next(number for number in range(DEFAULT.index + 1, catalog.LAST_INDEX) if number not in used)
        record = Record(chosen, index, internal, mtu or DEFAULT.mtu, dict(labels or {}), time.time())
        filetree.write_atomic(catalog.path(name), records.line(record._asdict()))


def _records() -> Iterator[tuple[str, Record]]:
    """Yield the default network and each that can be read, by name; a damaged one has no address that is known."""
    yield DEFAULT.called, Record(DEFAULT.subnet.text, DEFAULT.index)
    for name in catalog.names():
        with suppress(VmctlError):
            yield name, catalog.read(name)


def _subnet(text: str | None, others: Mapping[str, Record]) -> str:
    ranges = {name: subnets.parse(record.subnet) for name, record in others.items()}
    if text is None:
        if found := subnets.first_free(list(ranges.values())):
            return found
        raise ConflictError("every subnet for networks is taken", hint="`vmctl network prune` removes unused networks")
    try:
        wanted = subnets.parse(text)
    except ValueError as error:
        raise SpecError(f"--subnet: expected {error}") from None
    for name, other in ranges.items():
        if subnets.overlap(wanted, other):
            raise ConflictError(
                f"the subnet {text} overlaps with that of the network {name}, {others[name].subnet}",
                hint="choose another one, or leave it out",
            )
    return text


def find(name: str) -> Seen:
    """Return a network. Raises NotFoundError, UnreadableError."""
    record = Record(DEFAULT.subnet.text, DEFAULT.index) if name == DEFAULT.called else catalog.read(name)
    return Seen(name, record, tuple(_members().get(name, ())))


def survey() -> list[Seen]:
    """Return all networks, the default one first; one that cannot be read raises no error."""
    members, found = _members(), []
    for name in (DEFAULT.called, *catalog.names()):
        try:
            found.append(find(name)._replace(members=tuple(members.get(name, ()))))
        except VmctlError as error:
            found.append(Seen(name, None, tuple(members.get(name, ())), str(error)))
    return found


def _members() -> dict[str, list[Member]]:
    """Return the instances in each network by its name, running or not."""
    found: dict[str, list[Member]] = {}
    for name in instance.names():
        with suppress(VmctlError):
            inst = instance.load(name)
            for one in inst.work.joined():
                found.setdefault(one.name, []).append(Member(name, inst.state.links.get(one.name), one.aliases))
    return found


def remove(name: str) -> None:
    """Remove a network. Raises NotFoundError, and ConflictError if an instance is in it, running or not."""
    if name in (DEFAULT.called, *ALONE):
        raise ConflictError(f"{name} is always there and cannot be removed")
    if not is_name(name) or not os.path.lexists(catalog.path(name)):
        raise catalog.absent(name)
    with folder_locked(catalog.folder()), switch.locked():  # `attach` looks for the record under the second lock
        if members := _members().get(name):
            raise ConflictError(
                f"the network {name} is used by {', '.join(member.name for member in members)}",
                hint=f"`vmctl down {members[0].name}` stops and removes an instance",
            )
        with suppress(FileNotFoundError):
            os.unlink(catalog.path(name))


def unused() -> list[str]:
    """Return the names of the networks that no instance is in, without the default one."""
    members = _members()
    return [name for name in catalog.names() if name not in members]
