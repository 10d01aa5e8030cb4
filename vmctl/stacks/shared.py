"""The top-level keys of a stack: networks, volumes, secrets and configurations."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from vmctl.errors import SpecError
from vmctl.net import STACK
from vmctl.spec import textfile
from vmctl.spec.scalars import is_volume_name
from vmctl.stacks import keys
from vmctl.stacks.item import Place
from vmctl.stacks.keys import Warn
from vmctl.stacks.stack import Network, Volume

DEFAULT = "default"  # the network of services that name none
_BRIDGES = ("bridge", "default")


class Provided(NamedTuple):
    """A secret or a configuration: the file, variable or text that has its content."""

    name: str
    place: Place
    file: str = ""
    variable: str = ""
    content: str | None = None


def networks(tree: Place, stack: str, warn: Warn) -> dict[str, Network]:
    """Return the networks of a stack by their names in the file; `default` is always there."""
    section = tree.get("networks")
    found = {name: _network(place, stack, warn) for name, place in _entries(section)}
    if DEFAULT not in found:
        found[DEFAULT] = Network(f"{stack}_{DEFAULT}", tree, labels={STACK: stack})
    return found


def _entries(section: Place | None) -> list[tuple[str, Place]]:
    return list(section.entries().items()) if section is not None else []


def _network(place: Place, stack: str, warn: Warn) -> Network:
    found = keys.check(place, keys.NETWORK, warn)
    name, external = _name(place, found, stack)
    if external:
        return Network(name, place, external=True)
    if "driver" in found and found["driver"].value is not None and found["driver"].text() not in _BRIDGES:
        raise found["driver"].error(f"the driver {found['driver'].kind()} is not available", "leave it out: bridge")
    subnet, gateway = _ipam(found["ipam"], warn) if "ipam" in found else ("", "")
    internal = "internal" in found and found["internal"].flag()
    return Network(name, place, internal=internal, subnet=subnet, gateway=gateway, labels=_labels(found, stack))


def _name(place: Place, found: Mapping[str, Place], stack: str) -> tuple[str, bool]:
    """Return the name on the host, and whether it is external."""
    given = found["name"].text() if "name" in found else ""
    external = found.get("external")
    if external is not None and external.is_map():  # the form of version 2
        inner = external.get("name")
        return given or (inner.text() if inner else place.key), True
    if external is not None and external.flag():
        return given or place.key, True
    return given or f"{stack}_{place.key}", False


def _labels(found: Mapping[str, Place], stack: str) -> dict[str, str]:
    return {**(labels(found["labels"]) if "labels" in found else {}), STACK: stack}


def labels(place: Place) -> dict[str, str]:
    """Return labels, which may be a list. Raises SpecError for a label that vmctl sets."""
    found = {}
    for name, part in place.pairs().items():
        if name.startswith("vmctl."):
            raise part.error("labels that begin with vmctl. are set by vmctl")
        found[name] = part.text() if part.value is not None else ""
    return found


def _ipam(place: Place, warn: Warn) -> tuple[str, str]:
    """Return subnet and gateway of `ipam`."""
    found = keys.check(place, keys.IPAM, warn)
    if "driver" in found and found["driver"].text() != "default":
        raise found["driver"].error("drivers of address management are not available", "leave it out")
    configs = found["config"].each() if "config" in found else []
    if len(configs) > 1:
        raise configs[1].error("a network has one subnet")
    if not configs:
        return "", ""
    parts = keys.check(configs[0], keys.SUBNET, warn)
    subnet = parts["subnet"].text() if "subnet" in parts else ""
    gateway = parts["gateway"].text() if "gateway" in parts else ""
    if subnet:
        inside = subnet_of(subnet, parts["subnet"])
        if gateway and address_of(gateway, parts["gateway"]) not in inside:
            raise parts["gateway"].error(f"{gateway} is not in {subnet}")
    return subnet, gateway


def subnet_of(text: str, place: Place) -> ipaddress.IPv4Network:
    """Return a subnet. Raises SpecError."""
    try:
        return ipaddress.IPv4Network(text)
    except ValueError:
        raise place.error(f"expected a subnet such as 10.88.7.0/24, got {text[:60]!r}") from None


def address_of(text: str, place: Place) -> ipaddress.IPv4Address:
    """Return an address. Raises SpecError."""
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise place.error(f"expected an IPv4 address, got {text[:60]!r}") from None


def volumes(tree: Place, stack: str, warn: Warn) -> dict[str, Volume]:
    """Return the named volumes of a stack by their names in the file."""
    return {name: _volume(place, stack, warn) for name, place in _entries(tree.get("volumes"))}


def _volume(place: Place, stack: str, warn: Warn) -> Volume:
    found = keys.check(place, keys.VOLUME, warn)
    name, external = _name(place, found, stack)
    if not is_volume_name(name):  # as the source of a mount it would be a path
        raise place.error(f"the name {name[:80]!r} cannot be that of a volume", "letters, digits, '-', '_' and '.'")
    if "driver" in found and found["driver"].value is not None and found["driver"].text() not in ("local", "default"):
        raise found["driver"].error(f"the driver {found['driver'].kind()} is not available", "leave it out: local")
    if "driver_opts" in found and found["driver_opts"].entries():
        raise found["driver_opts"].error(
            "options of volume drivers are not available", "a folder of the host: `./folder:/target` in the service"
        )
    return Volume(name, place, external) if external else Volume(name, place, labels=_labels(found, stack))


def secrets(tree: Place, warn: Warn) -> dict[str, Provided]:
    """Return the secrets of a stack."""
    return {name: _provided(place, keys.SECRET, warn) for name, place in _entries(tree.get("secrets"))}


def configs(tree: Place, warn: Warn) -> dict[str, Provided]:
    """Return the configurations of a stack."""
    return {name: _provided(place, keys.CONFIG, warn) for name, place in _entries(tree.get("configs"))}


def _provided(place: Place, known: keys.Keys, warn: Warn) -> Provided:
    found = keys.check(place, known, warn)
    given = [name for name in ("file", "environment", "content") if name in found]
    if len(given) != 1:
        kinds = ", ".join(name for name in ("file", "environment", "content") if name in known.known)
        raise place.error(f"expected one of {kinds}, got {', '.join(given) or 'none'}")
    source = found[given[0]]
    if given[0] == "file":
        return Provided(place.key, source, file=source.path_of_host())
    if given[0] == "environment":
        return Provided(place.key, source, variable=source.text())
    return Provided(place.key, source, content=source.text())


def content(provided: Provided, values: Mapping[str, str]) -> bytes:
    """Return the content of a configuration. Raises SpecError."""
    if provided.content is not None:
        return provided.content.encode()
    if provided.variable:
        if provided.variable not in values:
            raise provided.place.error(f"the variable {provided.variable} is not set")
        return values[provided.variable].encode()
    try:
        return textfile.read(provided.file, "configuration")
    except SpecError as error:
        raise provided.place.error(str(error), error.hint) from None
