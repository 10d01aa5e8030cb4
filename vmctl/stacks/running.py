"""Bring a stack up, and take it down."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from vmctl import backends, engine
from vmctl.errors import ConflictError, SpecError, VmctlError
from vmctl.instances import instance
from vmctl.spec import textfile
from vmctl.stacks import belongings, bringing, changes, clashes, ending, graph, loading, record, workers
from vmctl.stacks.changes import Change, Present, Wanted
from vmctl.stacks.stack import Service, Stack
from vmctl.stacks.workers import Failure, Job
from vmctl.survey import look


class Request(NamedTuple):
    """What the command line asks for."""

    mode: str  # of services that do not name one; "": the stack's
    default_mode: str  # if the stack names none either
    options: Mapping[str, str] = {}  # of modes
    services: tuple[str, ...] = ()  # only these, and what they wait for
    mode_of: Mapping[str, str] = {}  # service -> mode
    scale: Mapping[str, int] = {}  # service -> number of instances
    wait: bool = True
    keep: bool = False  # keep everything after a failure
    replace: bool = False  # replace instances even if nothing has changed
    remove_orphans: bool = False
    dry: bool = False  # only report what would be done


class Reporter(Protocol):
    """Receives what happens."""

    def change(self, change: Change) -> None:
        """This is done to an instance."""

    def event(self, name: str, event: str, values: Mapping[str, Any]) -> None:
        """Something has happened to an instance."""

    def warn(self, text: str) -> None:
        """A warning for the user."""


class Images(Protocol):
    """The image store, which this library does not know."""

    def provide(self, service: Service) -> None:
        """Build or pull the image of a service, if it is asked for. Raises errors of vmctl.errors."""

    def digest(self, name: str) -> str | None:
        """Return the digest of an image; None if it is not in the store."""


def up(stack: Stack, request: Request, images: Images, reporter: Reporter) -> list[Failure]:
    """Bring a stack up, and change only what is different. Returns the failures, the first one first.

    After a failure what this call has started is removed again, unless `request.keep`. Raises the errors that are found
    before anything starts.
    """
    services = graph.selected(stack, request.services)
    _check_names(stack, request)
    for text in stack.warnings:
        reporter.warn(text)
    wanted = _wanted(stack, services, request)
    if request.dry:
        present = _present(stack, wanted, record.load(stack.name))
        for change in _plan(stack, services, wanted, present, request, images):
            reporter.change(change)
        return []
    with record.locked(stack.name):
        return _up_locked(stack, services, wanted, request, images, reporter)


def _up_locked(
    stack: Stack,
    services: Mapping[str, Service],
    wanted: Mapping[str, Wanted],
    request: Request,
    images: Images,
    reporter: Reporter,
) -> list[Failure]:
    before = record.load(stack.name)
    present = _present(stack, wanted, before)
    _remember(stack, services, wanted, before)
    plan: list[Change] = []
    new_volumes: list[str] = []
    begun = done = False
    try:
        new_volumes = belongings.make(
            stack.name, loading.used_networks(stack, services), loading.used_volumes(stack, services)
        )
        plan = _plan(stack, services, wanted, present, request, images)
        unwanted = _unwanted(stack, services, request, wanted, reporter)
        for change in (*unwanted, *plan):
            reporter.change(change)
        begun = True
        for change in unwanted:
            engine.down(change.name)
        failures = _carry_out(stack, services, plan, request, reporter)
        done = not failures
    finally:
        if not done and not (request.keep and begun):  # also if this command is interrupted
            _take_back(stack, plan if begun else [], [] if begun else new_volumes)
    return failures


def _check_names(stack: Stack, request: Request) -> None:
    for flag, given in (("--mode-of", request.mode_of), ("--scale", request.scale)):
        for name in given:
            if name not in stack.services:
                from vmctl.stacks.item import near

                raise SpecError(
                    f"{flag}: the stack {stack.name} has no service {name}", hint=near(name, stack.services)
                )
    for name, count in request.scale.items():
        if count > 1 and stack.services[name].own_name:
            raise SpecError(f"--scale {name}={count}: a service with a container_name has one instance")


def _wanted(stack: Stack, services: Mapping[str, Service], request: Request) -> dict[str, Wanted]:
    """Return the instances that there should be, by name, after a check of what excludes each other."""
    works = {name: one.instances(request.scale.get(name)) for name, one in services.items()}
    clashes.check(services, works, loading.used_networks(stack, services))
    found = {}
    awaited = {
        name
        for one in services.values()
        for name, dependency in one.depends.items()
        if dependency.condition == "completed"
    }
    for name, service in services.items():
        mode = mode_of(service, stack, request)
        backend = backends.load(mode, backends.suited(mode, request.options))
        if backend.features.own_kernel:
            for needed in service.shared_kernel:
                raise needed.place.error(needed.text, f"mode: container for {name}, or leave it out")
        inputs, once = _inputs(service, stack.values), name in awaited
        found.update({work.name: Wanted(work, name, mode, inputs, once) for work in works[name]})
    return found


def mode_of(service: Service, stack: Stack, request: Request) -> str:
    """Return the mode of a service: the nearest one that is given."""
    return request.mode_of.get(service.name) or service.mode or request.mode or stack.mode or request.default_mode


def _inputs(service: Service, values: Mapping[str, str]) -> str:
    """Return a digest of the files and variables whose content is in no record; "" without such files and variables."""
    document = service.work._asdict()
    paths = [one.path for one in document.get("env_file", ())] + [
        one.file for one in document.get("secrets", ()) if one.file
    ]
    parts = []
    for path in paths:
        with suppress(OSError):
            parts.append(textfile.content(path, textfile.MAX_BYTES))
    parts += [values.get(name, "").encode() for name in service.secret_env]
    digests = b"".join(sha256(part).digest() for part in parts)
    return sha256(digests).hexdigest() if parts else ""


def _plan(
    stack: Stack,
    services: Mapping[str, Service],
    wanted: Mapping[str, Wanted],
    present: Mapping[str, Present],
    request: Request,
    images: Images,
) -> list[Change]:
    """Return what is to be done, after all that can be checked was checked; images are built on the way."""
    for service in () if request.dry else services.values():
        images.provide(service)
    plan = changes.plan(wanted, present, images.digest, replace=request.replace)
    for change in plan:
        if change.kind in ("create", "replace"):
            assert change.wanted is not None
            held = present[change.name].inst.work.ports if change.name in present else ()
            _check_mode(services[change.service], change.wanted, request, held)
    return plan


def _check_mode(service: Service, wanted: Wanted, request: Request, held: Iterable[object]) -> None:
    """Raise the error of everything that stands in the way of an instance on this host."""
    backend = backends.load(wanted.mode, backends.suited(wanted.mode, request.options))
    free = wanted.work._replace(ports=tuple(port for port in wanted.work.ports if port not in set(held)))
    if request.dry and free.joined():  # its networks may not be there yet
        free = free._replace(network="bridge")
    if service.beside:  # which may not run yet
        free = free._replace(network="none")
    try:
        engine.check(free, backend)
    except VmctlError as error:
        error.args = (f"{service.place.error(str(error))}",)
        raise


def _present(stack: Stack, wanted: Mapping[str, Wanted], before: record.Record) -> dict[str, Present]:
    """Return the instances of the stack that there are. Raises ConflictError for a name that another one has."""
    ours = record.instances(stack.name)
    found = {}
    for name in {**dict.fromkeys(wanted), **ours}:
        seen = look(name)
        if seen is None:
            continue
        if name not in ours or seen.instance is None:
            if name in wanted:
                raise (
                    instance.taken(name) if seen.instance else ConflictError(seen.reason, hint=f"`vmctl rm -f {name}`")
                )
            continue
        found[name] = Present(seen.instance, seen.status, before.inputs.get(name, ""))
    return found


def _remember(
    stack: Stack, services: Mapping[str, Service], wanted: Mapping[str, Wanted], before: record.Record
) -> None:
    """Write the record, before anything is made."""
    networks = [one.name for one in loading.used_networks(stack, services).values() if not one.external]
    volumes = [one.name for one in loading.used_volumes(stack, services).values() if not one.external]
    depends = {name: tuple(one.depends) for name, one in services.items()}
    inputs = {name: one.inputs for name, one in wanted.items() if one.inputs}
    record.save(
        record.Record(
            stack.name,
            tuple(map(os.path.abspath, stack.source.files)),
            tuple(dict.fromkeys((*before.networks, *networks))),
            tuple(dict.fromkeys((*before.volumes, *volumes))),
            {**before.depends, **depends},
            {**before.inputs, **inputs},
            tuple(stack.source.profiles),
            tuple(map(os.path.abspath, stack.source.env_files)),
        )
    )


def _unwanted(
    stack: Stack,
    services: Mapping[str, Service],
    request: Request,
    wanted: Mapping[str, Wanted],
    reporter: Reporter,
) -> list[Change]:
    """Return the removal of instances: too many of a service, and with `remove_orphans` those of no service."""
    found, orphans = [], []
    for name, service in record.instances(stack.name).items():
        if name in wanted:
            continue
        if service in services:
            found.append(Change(name, "remove", service, ("scale",)))
        elif service not in stack.services:
            orphans.append(Change(name, "remove", service, ("its service is gone",)))
    if orphans and not request.remove_orphans:
        names = ", ".join(change.name for change in orphans)
        reporter.warn(f"{names}: the file has no such service any more; --remove-orphans removes its instances")
        return found
    return found + orphans


def _carry_out(
    stack: Stack, services: Mapping[str, Service], plan: Sequence[Change], request: Request, reporter: Reporter
) -> list[Failure]:
    conditions: dict[str, set[str]] = {name: set() for name in services}
    for service in services.values():
        for name, dependency in service.depends.items():
            if name in services:
                conditions[name].add(dependency.condition)
    names = {service: [change.name for change in plan if change.service == service] for service in services}
    jobs = [_job(change, services, names, conditions, request) for change in plan]
    os.environ.update({name: text for name, text in stack.values.items() if _is_secret(name, services)})
    return workers.run(jobs, reporter.event, go_on=request.keep)


def _is_secret(name: str, services: Mapping[str, Service]) -> bool:
    return any(name in service.secret_env for service in services.values())


def _job(
    change: Change,
    services: Mapping[str, Service],
    names: Mapping[str, Sequence[str]],
    conditions: Mapping[str, set[str]],
    request: Request,
) -> Job:
    """Return the job for a change: it begins when what its service waits for has happened."""
    needs = [
        (name, dependency.condition)
        for other, dependency in services[change.service].depends.items()
        for name in names.get(other, ())
    ]
    assert change.wanted is not None  # only a removal has none
    mode = change.wanted.mode
    options = backends.suited(mode, request.options)
    weight = _weight(mode)
    wanted = conditions[change.service]

    def act(send: workers.Send) -> None:
        bringing.bring(change, options, wanted, send, wait=request.wait)

    return Job(change.name, act, tuple(needs), weight)


def _weight(mode: str) -> int:
    """Return the share of the jobs at once: as many guests as processors boot at the same time."""
    if backends.load(mode).features.own_kernel:
        return max(1, workers.MOST_AT_ONCE // len(os.sched_getaffinity(0)))
    return 1


def _take_back(stack: Stack, plan: Sequence[Change], volumes: Sequence[str]) -> None:
    """Remove what a failed `up` has created, and these volumes; what was there before stays."""
    for change in reversed(plan):
        with suppress(VmctlError):
            if change.kind in ("create", "replace"):
                engine.down(change.name)
            elif change.kind == "start":
                engine.stop(instance.load(change.name))
    if not record.instances(stack.name):
        ending.close(record.load(stack.name), volumes)
