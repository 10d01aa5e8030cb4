"""Translate a service into a workload: each honoured key, in either of its forms."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

from vmctl.errors import SpecError
from vmctl.net import SERVICE, STACK
from vmctl.spec import workloadfile
from vmctl.spec.rules import MOST_PORTS
from vmctl.spec.workload import Workload
from vmctl.stacks import allowed, forms, inputs, joining, keys, shared
from vmctl.stacks.draft import Draft
from vmctl.stacks.item import Place, near
from vmctl.stacks.parts import Context, Parts
from vmctl.stacks.stack import Build, Dependency, Service

_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
    **{name: name for name in ("started", "ready", "healthy", "completed")},
}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PULLS = {"always": "always", "missing": "missing", "if_not_present": "missing", "never": "never", "build": "build"}
MOST_INSTANCES = 500


def translated(place: Place, context: Context) -> Service:
    """Return a service. Raises SpecError with its place."""
    found = keys.check(place, keys.SERVICE, context.warn)
    found = {name: part for name, part in found.items() if part.value is not None}
    parts = Parts(place, found, Draft(place), context, [])
    build = _build(parts)
    _identity(parts, build)
    for key, act in _KEYS.items():
        if key in found:
            act(parts, found[key])
    joining.network(parts)
    inputs.environment(parts)
    for name in keys.SAME & found.keys():
        parts.draft.set(name, found[name].item.plain(), found[name])
    shared_kernel = tuple(allowed.translate(place, found, parts.draft, context.warn))
    return Service(
        name=place.key,
        work=_completed(parts),
        place=place,
        mode=found["mode"].text() if "mode" in found else "",
        depends=_depends(found["depends_on"]) if "depends_on" in found else {},
        profiles=tuple(found["profiles"].texts()) if "profiles" in found else (),
        scale=_scale(parts),
        build=build,
        pull=_pull(found["pull_policy"]) if "pull_policy" in found else "",
        own_name="container_name" in found,
        shared_kernel=shared_kernel,
        secret_env=tuple(secret["env"] for secret in parts.draft.document.get("secrets", ()) if "env" in secret),
        missing=tuple(parts.missing),
    )


def _completed(parts: Parts) -> Workload:
    """Return the workload with the content of `files` and absolute paths."""
    folder = parts.place.item.origin.folder
    try:
        return workloadfile.completed(parts.draft.workload(), folder)
    except SpecError as error:
        known = str(error).startswith(parts.place.item.origin.file)
        raise error if known else parts.place.error(str(error), error.hint) from None


def _identity(parts: Parts, build: Build | None) -> None:
    """Set name, image and labels."""
    name = f"{parts.context.stack}-{parts.place.key}"
    own = parts.found.get("container_name")
    parts.draft.set("name", own.text() if own else name, own or parts.place)
    image = parts.found.get("image")
    if image is None and build is None:
        raise parts.place.error("the key image is missing", "image: NAME, or build: FOLDER")
    parts.draft.set("image", image.text() if image else name, image or parts.place)
    given = shared.labels(parts.found["labels"]) if "labels" in parts.found else {}
    ours = {STACK: parts.context.stack, SERVICE: parts.place.key}
    parts.draft.set("labels", {**given, **ours}, parts.found.get("labels", parts.place))


def _scale(parts: Parts) -> int:
    """Return how many instances there are: `scale`, or `deploy.replicas`."""
    deploy = parts.found.get("deploy")
    place = parts.found.get("scale") or (deploy.get("replicas") if deploy else None)
    if place is None:
        return 1
    count = place.whole(0, MOST_INSTANCES)
    if count > 1 and "container_name" in parts.found:
        raise place.error("instances with a container_name cannot be several", "leave out container_name")
    return count


def _build(parts: Parts) -> Build | None:
    place = parts.found.get("build")
    if place is None:
        return None
    if place.is_text():
        return Build(place.path_of_host(), "", {}, "", "", True, place)
    found = keys.check(place, keys.BUILD, parts.context.warn)
    if "context" not in found:
        raise place.error("the key context is missing", "context: FOLDER")
    text = {name: found[name].text() for name in ("dockerfile", "target", "network") if name in found}
    return Build(
        found["context"].path_of_host(),
        text.get("dockerfile", ""),
        inputs.arguments(found["args"], parts.context.values) if "args" in found else {},
        text.get("target", ""),
        text.get("network", ""),
        not ("no_cache" in found and found["no_cache"].flag()),
        place,
    )


def _words(key: str) -> Callable[[Parts, Place], None]:
    return lambda parts, place: parts.draft.set(key, forms.command(place), place)


def _text(key: str) -> Callable[[Parts, Place], None]:
    return lambda parts, place: parts.draft.set(key, place.text(), place)


def _flag(key: str) -> Callable[[Parts, Place], None]:
    return lambda parts, place: parts.draft.set(key, place.flag(), place)


def _ports(parts: Parts, place: Place) -> None:
    for one in place.each():
        for text in forms.ports(one, parts.context.warn):
            parts.draft.add("ports", text, one)
        if len(parts.draft.document.get("ports", ())) > MOST_PORTS:  # refused by the rules
            return


def _volumes(parts: Parts, place: Place) -> None:
    for one in place.each():
        mount = forms.mount(one, parts.context.warn)
        if mount.tmpfs is not None:
            parts.draft.add("tmpfs", mount.target + f":{mount.tmpfs}" * bool(mount.tmpfs), one)
            continue
        if mount.path and not os.path.exists(mount.path):
            parts.missing.append(one.error(f"{mount.path} does not exist", f"mkdir -p {mount.path}"))
        if ":" in mount.path:
            raise one.error(f"the path {mount.path} has a colon", "use another path")
        source = mount.path or (forms.volume_name(mount, one, parts.context.volumes) if mount.volume else "")
        options = ",".join(("ro",) * mount.read_only + ("nocopy",) * mount.nocopy)
        parts.draft.add("volumes", ":".join(filter(None, (source, mount.target, options))), one)


def _tmpfs(parts: Parts, place: Place) -> None:
    for one in place.one_or_each():
        parts.draft.add("tmpfs", one.text(), one)


def _expose(parts: Parts, place: Place) -> None:
    """Check `expose`: on a network of vmctl every port of a service is in reach of the others."""
    for one in place.each():
        for _ in forms.ports(one, parts.context.warn):
            pass


def _health(parts: Parts, place: Place) -> None:
    found = keys.check(place, keys.HEALTHCHECK, parts.context.warn)
    if "health" in parts.found:
        raise place.error("health is given too", "one of them is enough")
    document: dict[str, object] = {}
    if "disable" in found and found["disable"].flag():
        return parts.draft.set("health", "none", place)
    if "test" in found:
        words = _test(found["test"])
        if not words:
            return parts.draft.set("health", "none", place)
        document["exec"] = words
    document.update(
        {name: forms.duration(found[name]) for name in ("interval", "timeout", "start_period") if name in found}
    )
    if "retries" in found:
        document["retries"] = found["retries"].whole(0)
    for name in found.keys() - {"disable"}:
        parts.draft.places[f"health.{'exec' if name == 'test' else name}"] = found[name]
    return parts.draft.set("health", document, place)


def _test(place: Place) -> list[str]:
    """Return the command of a check; none for NONE."""
    if place.is_text():
        return ["/bin/sh", "-c", place.text()]
    kind, *words = place.texts() or [""]
    if kind == "NONE" and not words:
        return []
    if kind == "CMD-SHELL" and len(words) == 1:
        return ["/bin/sh", "-c", words[0]]
    if kind == "CMD" and words:
        return words
    raise place.error("expected a text, [NONE], [CMD, PROGRAM, ...] or [CMD-SHELL, TEXT]")


def _restart(parts: Parts, place: Place) -> None:
    text = place.text()
    parts.draft.set("restart", "no" if text == "false" else text, place)


def _depends(place: Place) -> dict[str, Dependency]:
    """Return what a service waits for: a list, a mapping to conditions, or the long form of Compose."""
    if not place.is_map():
        return {one.text(): Dependency("started", one) for one in place.each()}
    found = {}
    for name, one in place.entries().items():
        parts = {"condition": one} if one.is_text() else keys.check(one, keys.DEPENDS, lambda _: None)
        condition = parts["condition"].text() if "condition" in parts else "started"
        if condition not in _CONDITIONS:
            raise one.error(f"the condition {condition[:40]!r} is unknown", near(condition, _CONDITIONS))
        required = "required" not in parts or parts["required"].flag()
        restart = "restart" in parts and parts["restart"].flag()
        found[name] = Dependency(_CONDITIONS[condition], one, required, restart)  # type: ignore[arg-type]
    return found


def _platform(_: Parts, place: Place) -> None:
    machine = platform.machine()
    own = f"linux/{_MACHINES.get(machine, machine)}"
    given = place.text().split("/")
    if given[0] != "linux" or _MACHINES.get(given[-1], given[1] if len(given) > 1 else "") != own.split("/")[1]:
        raise place.error(f"this host is {own}, it cannot run {place.text()[:40]}", "leave it out")


def _pull(place: Place) -> str:
    if place.text() not in _PULLS:
        raise place.error(f"expected one of {', '.join(_PULLS)}, got {place.kind()}")
    return _PULLS[place.text()]


def _terminal(parts: Parts, place: Place) -> None:
    if place.flag():
        parts.context.warn(place.warning("it has no effect: `vmctl shell` and `vmctl exec -it` open a terminal"))


_KEYS: dict[str, Callable[[Parts, Place], None]] = {
    "command": _words("command"),
    "entrypoint": _words("entrypoint"),
    "env_file": inputs.env_file,
    "ports": _ports,
    "volumes": _volumes,
    "tmpfs": _tmpfs,
    "expose": _expose,
    "healthcheck": _health,
    "restart": _restart,
    "secrets": inputs.secrets,
    "configs": inputs.configs,
    "platform": _platform,
    "hostname": _text("hostname"),
    "user": _text("user"),
    "working_dir": _text("workdir"),
    "workdir": _text("workdir"),
    "init": _flag("init"),
    "read_only": _flag("read_only"),
    "tty": _terminal,
    "stdin_open": _terminal,
}
