"""Take a stack down, and what `up` has left of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from vmctl import engine
from vmctl.stacks import belongings, graph, record, workers
from vmctl.stacks.workers import Job


def down(name: str, timeout_s: float | None, *, volumes: bool, report: workers.Report) -> bool:
    """Stop and remove all instances of a stack, in the reverse order of their dependencies, and its networks.

    With `volumes` its named volumes too. Returns False if there is nothing of this stack. Raises the first failure.
    """
    with record.locked(name):
        known, ours = record.load(name), record.instances(name)
        there = bool(ours) or os.path.exists(os.path.join(record.folder(name), record.RECORD))
        failures = workers.run(_reversed(ours, known, lambda one: engine.down(one, timeout_s)), report, go_on=True)
        if failures:
            raise failures[0].error
        close(known, known.volumes if volumes else ())
        return there


def close(known: record.Record, volumes: Sequence[str]) -> None:
    """Remove the networks of a stack without instances, and these of its volumes; forget it unless something stays."""
    networks = belongings.remove(known.networks)
    belongings.remove_volumes(volumes)
    left = tuple(filter(belongings.has_volume, known.volumes))
    if networks or left:
        record.save(record.Record(known.name, known.files, tuple(networks), left))
    else:
        record.forget(known.name)


def in_order(name: str) -> list[str]:
    """Return the instances of a stack, each after those that it depends on."""
    ours, known = record.instances(name), record.load(name)
    depends = {service: known.depends.get(service, ()) for service in sorted(set(ours.values()))}
    return [one for service in graph.in_order(depends) for one, of in ours.items() if of == service]


def _reversed(ours: Mapping[str, str], known: record.Record, act: Callable[[str], object]) -> list[Job]:
    """Return a job per instance; it begins when the jobs of those that depend on it are done."""
    depends = {name: [other for other in known.depends.get(name, ()) if other != name] for name in set(ours.values())}
    order = graph.in_order(depends)
    place = {name: number for number, name in enumerate(order)}

    def job(name: str, service: str) -> Job:
        # only later ones: a damaged record can have a cycle
        users = [other for other, needed in depends.items() if service in needed and place[other] > place[service]]
        needs = [(one, workers.DONE) for one, of in ours.items() if of in users]
        return Job(name, lambda send: (act(name), None)[1], tuple(needs))

    return [job(name, service) for name, service in ours.items()]
