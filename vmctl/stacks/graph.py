"""The order of services: what waits for what, which services are meant, and cycles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vmctl.errors import SpecError
from vmctl.stacks.item import near
from vmctl.stacks.stack import Service, Stack


def check(services: Mapping[str, Service]) -> None:
    """Raise SpecError for a dependency on a service that does not exist, on itself, and for a cycle."""
    for service in services.values():
        for name, dependency in service.depends.items():
            if name not in services and dependency.required:
                raise dependency.place.error(f"there is no service {name}", near(name, services))
    if cycle := _cycle(services):
        first = services[cycle[0]].depends[cycle[1]].place
        raise first.error(f"the services wait for each other: {' -> '.join(cycle)}", "remove one of these dependencies")


def _cycle(services: Mapping[str, Service]) -> list[str]:
    """Return the names of a cycle, the first one twice; none if there is no cycle."""
    left = {name: [other for other in one.depends if other in services] for name, one in services.items()}
    while free := [name for name, others in left.items() if not any(other in left for other in others)]:
        for name in free:
            del left[name]
    if not left:
        return []
    path = [next(iter(left))]
    while path[-1] not in path[:-1]:
        path.append(next(other for other in left[path[-1]] if other in left))
    return path[path.index(path[-1]) :]


def selected(stack: Stack, names: Iterable[str] = ()) -> dict[str, Service]:
    """Return the services that are meant: those of the active profiles, or the named ones, and what they wait for.

    Raises SpecError for an unknown name, and if a service waits for one of another profile.
    """
    names = list(names)
    for name in names:
        if name not in stack.services:
            raise SpecError(f"the stack {stack.name} has no service {name}", hint=near(name, stack.services))
    waiting = list(names) or [name for name, service in stack.services.items() if _active(service, stack.profiles)]
    found: dict[str, Service] = {}
    while waiting:
        service = stack.services[waiting.pop()]
        if service.name in found:
            continue
        found[service.name] = service
        for name, dependency in service.depends.items():
            other = stack.services.get(name)
            if other is not None and (_active(other, stack.profiles) or name in names):
                waiting.append(name)
            elif dependency.required:
                profiles = " or ".join(other.profiles if other else ())
                raise dependency.place.error(
                    f"{name} is not started: it is in the profile {profiles}", f"--profile {profiles.split(' ')[0]}"
                )
    return {name: found[name] for name in stack.services if name in found}


def _active(service: Service, profiles: Iterable[str]) -> bool:
    return not service.profiles or "*" in profiles or bool(set(service.profiles) & set(profiles))


def in_order(depends: Mapping[str, Iterable[str]]) -> list[str]:
    """Return names so that each comes after those that it depends on; without cycles, else the rest is at the end."""
    left = {name: [other for other in others if other in depends] for name, others in depends.items()}
    found: list[str] = []
    while free := [name for name, others in left.items() if not any(other in left for other in others)]:
        found += free
        for name in free:
            del left[name]
    return [*found, *left]
