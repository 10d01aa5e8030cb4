"""Read a stack from its files: everything that does not depend on the state of this host."""

from __future__ import annotations

from collections.abc import Mapping

from vmctl.errors import SpecError
from vmctl.stacks import graph, joining, reading, shared
from vmctl.stacks.parts import Context
from vmctl.stacks.reading import Document
from vmctl.stacks.service import translated
from vmctl.stacks.stack import Network, Service, Source, Stack, Volume


def load(source: Source, contents: Mapping[str, bytes] | None = None) -> Stack:
    """Return the stack of these files, with all its services. Raises SpecError with file, line, service and key.

    `contents` has what was read already, by file.
    """
    document = reading.read(source, contents)
    warnings = dict.fromkeys(document.warnings)
    return _stack(document, source, warnings)


def _stack(document: Document, source: Source, warnings: dict[str, None]) -> Stack:
    def warn(text: str) -> None:
        warnings[text] = None

    tree = document.tree
    services = tree.get("services")
    if services is None or not services.entries():
        raise SpecError(f"{tree.item.origin.file} has no services", hint="services: {web: {image: tiny}}")
    context = Context(
        document.name,
        shared.networks(tree, document.name, warn),
        shared.volumes(tree, document.name, warn),
        shared.secrets(tree, warn),
        shared.configs(tree, warn),
        document.values,
        warn,
    )
    found = {}
    for name, place in services.entries().items():
        if place.value is None:
            raise place.error("the service has no keys", "image: NAME")
        found[name] = translated(place, context)
    found = joining.beside(found)
    graph.check(found)
    mode = tree.get("mode")
    return Stack(
        document.name,
        source,
        found,
        {network.name: network for network in context.networks.values()},
        {volume.name: volume for volume in context.volumes.values()},
        mode.text() if mode else "",
        document.profiles,
        document.values,
        tuple(warnings),
    )


def used_networks(stack: Stack, services: Mapping[str, Service]) -> dict[str, Network]:
    """Return the networks of the stack that these services are in, by their names on the host."""
    names = {one.name for service in services.values() for one in service.work.joined()}
    return {name: network for name, network in stack.networks.items() if name in names}


def used_volumes(stack: Stack, services: Mapping[str, Service]) -> dict[str, Volume]:
    """Return the named volumes of the stack that these services mount, by their names on the host."""
    names = {volume.source for service in services.values() for volume in service.work.volumes}
    return {name: volume for name, volume in stack.volumes.items() if name in names}
