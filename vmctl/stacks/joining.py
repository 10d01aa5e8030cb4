"""The networks of a service."""

from __future__ import annotations

from collections.abc import Mapping

from vmctl.spec import rules
from vmctl.stacks import keys, shared
from vmctl.stacks.item import Place, near
from vmctl.stacks.parts import Parts
from vmctl.stacks.shared import DEFAULT
from vmctl.stacks.stack import Dependency, Needed, Service

_ALONE = ("none", "host", "bridge")
_OTHERS = "none, host, bridge, service:NAME or container:NAME"


def network(parts: Parts) -> None:
    """Set `network` from `network_mode`, `networks`, or the default network of the stack."""
    kinds = [parts.found[name] for name in ("network_mode", "networks", "network") if name in parts.found]
    if len(kinds) > 1:
        raise kinds[1].error(f"{kinds[0].key} is given too", "one of them is enough")
    place = kinds[0] if kinds else parts.place
    lookups = {name: parts.found[name] for name in ("dns", "dns_search", "dns_opt") if name in parts.found}
    lookups = {name: found for name, found in lookups.items() if found.value not in ([], "")}
    if place.key == "network":
        if lookups:
            raise min(lookups.items())[1].error("network is given too", "write it in the mapping of `network`")
        parts.draft.set("network", place.item.plain(), place)
    elif place.key == "network_mode":
        text = place.text()
        if text not in _ALONE and text.partition(":")[0] not in ("service", "container"):
            raise place.error(f"{text[:60]!r} is not available", f"{_OTHERS}; or `networks`")
        if text not in _ALONE and lookups:
            raise min(lookups.items())[1].error(f"with {text[:60]} this is decided by the one whose network it shares")
        # the instance of another service is known when all are read: see `beside`
        network = text.replace("service:", rules.BESIDE, 1)
        _set(parts, {"networks": [{"name": network}]} if lookups else network, lookups, place)
    else:
        joined = list(_joined(place if kinds else None, parts))
        options: dict[str, object] = {"networks": joined}
        if "container_name" in parts.found:
            options["aliases"] = [parts.place.key]
        _set(parts, options, lookups, place)


def _set(parts: Parts, network: str | dict[str, object], lookups: Mapping[str, Place], place: Place) -> None:
    """Set `network` with the ways in which names are looked up, each a text or a list."""
    asked = {name: [one.text() for one in found.one_or_each()] for name, found in lookups.items()}
    parts.draft.set("network", network if isinstance(network, str) else {**network, **asked}, place)
    parts.draft.places.update({f"network.{name}": found for name, found in lookups.items()})


def beside(services: Mapping[str, Service]) -> dict[str, Service]:
    """Return services of which those with `network_mode: service:NAME` share the network of an instance of that one.

    They start after it, and again after it. Neither can be a guest. Raises SpecError.
    """
    found = dict(services)
    for name, service in services.items():
        place = service.place.get("network_mode")
        kind, _, other = place.text().partition(":") if place is not None else ("", "", "")
        if place is None or kind not in ("service", "container"):
            continue
        reasons = [Needed(place, f"{place.text()}: a guest has its own kernel, and so its own network")]
        found[name] = found[name]._replace(shared_kernel=(*found[name].shared_kernel, *reasons))
        if kind == "container":
            continue
        if other not in services or other == name:
            raise place.error(f"there is no other service {other[:60]}", near(other, services))
        depends = {other: Dependency("started", place), **service.depends}
        depends[other] = depends[other]._replace(required=True, restart=True)
        work = service.work._replace(network=f"{rules.BESIDE}{services[other].work.name}")
        found[name] = found[name]._replace(work=work, depends=depends, beside=other)
        reason = Needed(place, f"{name} is in the network of {other}, and a guest has a network of its kernel")
        found[other] = found[other]._replace(shared_kernel=(*found[other].shared_kernel, reason))
    return found


def _joined(place: Place | None, parts: Parts) -> list[dict[str, object]]:
    """Return the networks of a service with aliases and addresses."""
    wanted: dict[str, Place] = {}
    if place is None or place.value in ([], {}):
        wanted = {DEFAULT: parts.place}
    elif place.is_map():
        wanted = place.entries()
    else:
        wanted = {one.text(): one for one in place.each()}
    return [_attached(name, one, place is not None and place.is_map(), parts) for name, one in wanted.items()]


def _attached(name: str, place: Place, has_keys: bool, parts: Parts) -> dict[str, object]:
    networks = parts.context.networks
    if name not in networks:
        raise place.error(f"the network {name} is not declared", near(name, networks))
    found = keys.check(place, keys.ATTACHMENT, parts.context.warn) if has_keys else {}
    document: dict[str, object] = {"name": networks[name].name}
    if "aliases" in found:
        document["aliases"] = found["aliases"].texts()
    if "ipv4_address" in found:
        address, network = found["ipv4_address"], networks[name]
        inside = shared.subnet_of(network.subnet, network.place) if network.subnet else None
        if inside is not None and shared.address_of(address.text(), address) not in inside:
            raise address.error(f"{address.text()} is not in {network.subnet}, the subnet of {name}")
        document["address"] = address.text()
    return document
