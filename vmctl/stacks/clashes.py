"""What in a stack excludes each other: names, ports, aliases, addresses and subnets; found before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vmctl.errors import SpecError
from vmctl.spec.rules import check_name
from vmctl.spec.workload import Port, Workload
from vmctl.stacks import shared
from vmctl.stacks.stack import Network, Service

Instances = Mapping[str, list[Workload]]  # by service


def check(services: Mapping[str, Service], instances: Instances, networks: Mapping[str, Network]) -> None:
    """Raise SpecError for the first clash, or for the first file of the host that is missing."""
    for service in services.values():
        for error in service.missing:
            raise error
    for rule in (_names(services, instances), _ports(services, instances), _addresses(services, instances)):
        for error in rule:
            raise error
    for error in (*_aliases(services, instances), *_subnets(networks)):
        raise error


def _names(services: Mapping[str, Service], instances: Instances) -> Iterator[SpecError]:
    seen: dict[str, Service] = {}
    for service in services.values():
        for work in instances[service.name]:
            try:
                check_name(work.name)
            except SpecError as error:
                yield service.place.error(str(error), error.hint)
            if work.name in seen:
                yield service.place.error(f"the name {work.name} is that of the service {seen[work.name].name} too")
            seen[work.name] = service


def _ports(services: Mapping[str, Service], instances: Instances) -> Iterator[SpecError]:
    taken: list[tuple[Port, str]] = []
    for service in services.values():
        place = service.place.get("ports") or service.place
        for work in instances[service.name]:
            for port in work.ports:
                for other, name in taken:
                    if _same(port, other):
                        who = "another instance of this service" if name == service.name else f"the service {name}"
                        yield place.error(
                            f"the port {port.address}:{port.host_port}/{port.protocol} is also published by {who}",
                            "publish another port" if name != service.name else "without a port of the host it is free",
                        )
                taken.append((port, service.name))


def _same(one: Port, other: Port) -> bool:
    """Return whether two ports of the host cannot be opened together; 0 is any free one."""
    if one.host_port != other.host_port or one.protocol != other.protocol or not one.host_port:
        return False
    everywhere = {"0.0.0.0"} if "." in one.address else {"::"}
    family = ("." in one.address) == ("." in other.address)
    return family and (one.address == other.address or bool({one.address, other.address} & everywhere))


def _addresses(services: Mapping[str, Service], instances: Instances) -> Iterator[SpecError]:
    taken: dict[tuple[str, str], str] = {}
    for service in services.values():
        place = service.place.get("networks") or service.place
        for work in instances[service.name]:
            for joined in work.joined():
                if joined.address is None:
                    continue
                owner = taken.setdefault((joined.name, joined.address), work.name)
                if owner != work.name:
                    yield place.error(f"the address {joined.address} is also that of {owner}")


def _aliases(services: Mapping[str, Service], instances: Instances) -> Iterator[SpecError]:
    """An alias of one service that is the name or alias of another one on the same network would be either of them."""
    taken: dict[tuple[str, str], str] = {}
    for service in services.values():
        for work in instances[service.name]:
            for joined in work.joined():
                for name in (service.name, work.name):
                    taken.setdefault((joined.name, name), service.name)
    for service in services.values():
        place = service.place.get("networks") or service.place
        for work in instances[service.name][:1]:
            for joined in work.joined():
                for alias in joined.aliases:
                    owner = taken.setdefault((joined.name, alias), service.name)
                    if owner != service.name:
                        yield place.error(f"the alias {alias} is also a name of the service {owner} there")


def _subnets(networks: Mapping[str, Network]) -> Iterator[SpecError]:
    known = [(one, shared.subnet_of(one.subnet, one.place)) for one in networks.values() if one.subnet]
    for number, (network, subnet) in enumerate(known):
        for other, taken in known[:number]:
            if subnet.overlaps(taken):
                yield network.place.error(f"the subnet {subnet} overlaps with {taken} of the network {other.name}")
