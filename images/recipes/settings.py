"""How a step changes an image's configuration: the section `config` of image-spec's config.md, and Docker's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from images.recipes import instructions
from images.recipes.lines import parse
from images.recipes.steps import (
    Action,
    Cmd,
    Command,
    Entrypoint,
    Env,
    Expose,
    Label,
    Shell,
    StopSignal,
    Stored,
    User,
    Volume,
    Workdir,
)
from images.recipes.variables import Variables
from images.store.image import DEFAULT_PATH
from vmctl.errors import SpecError
from vmctl.spec import rules, userid

DEFAULT_SHELL = ("/bin/sh", "-c")
CHANGEABLE = ("CMD", "ENTRYPOINT", "ENV", "WORKDIR", "USER", "LABEL", "EXPOSE", "VOLUME", "STOPSIGNAL", "HEALTHCHECK")

Settings = dict[str, Any]


def change(settings: Mapping[str, Any], text: str) -> Settings:
    """Return the settings after one instruction of a Dockerfile such as `CMD ["httpd"]`. Raises SpecError.

    Variables are those of the image's own environment.
    """
    found = parse(text, "the change").lines
    if (
        len(found) != 1
        or found[0].word not in CHANGEABLE
        or not (found[0].rest or found[0].word in instructions.MAY_BE_BARE)
    ):
        raise SpecError(f"{text!r} does not change a configuration", hint=f"known: {', '.join(CHANGEABLE)}")
    try:
        action = instructions.READERS[found[0].word](found[0], "\\")
        return applied(dict(settings), Variables("\\", quotes=True).action(action, partial(variable, settings)))
    except ValueError as error:
        raise SpecError(f"{text}: {error}") from None


def applied(settings: Settings, action: Action) -> Settings:
    """Return the settings after a step whose variables have been filled in. Raises ValueError."""
    match action:
        case Env(pairs):
            return {
                **settings,
                "Env": [f"{name}={value}" for name, value in {**environment(settings), **dict(pairs)}.items()],
            }
        case Label(pairs):
            return {**settings, "Labels": {**(settings.get("Labels") or {}), **dict(pairs)}}
        case Workdir(path):
            return {
                **settings,
                "WorkingDir": instructions.absolute(path, settings.get("WorkingDir", "")).rstrip("/") or "/",
            }
        case User(user):
            userid.check_numbers(user)
            return {**settings, "User": user}
        case Shell(argv):
            return {**settings, "Shell": list(argv)}
        case Entrypoint(command):
            return {**settings, "Entrypoint": argv_of(command, settings)}
        case Cmd(command):
            return {**settings, "Cmd": argv_of(command, settings)}
        case Expose(ports):
            return {**settings, "ExposedPorts": {**(settings.get("ExposedPorts") or {}), **_ports(ports)}}
        case Volume(paths):
            for path in paths:
                rules.check_volume_target(path)
            return {**settings, "Volumes": {**(settings.get("Volumes") or {}), **{path: {} for path in paths}}}
        case StopSignal(signal):
            instructions.check_signal(signal)
            return {**settings, "StopSignal": signal}
        case Stored("OnBuild", text):
            return {**settings, "OnBuild": [*(settings.get("OnBuild") or []), text]}
        case Stored(key, value):
            return {**settings, key: value}
    return settings


def argv_of(command: Command, settings: Mapping[str, Any]) -> list[str]:
    """Return the program and its arguments; a line is one argument of the shell."""
    if isinstance(command, str):
        return [*(settings.get("Shell") or DEFAULT_SHELL), command]
    return list(command)


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of an image."""
    return {line.partition("=")[0]: line.partition("=")[2] for line in settings.get("Env") or ()}


def variable(settings: Mapping[str, Any], name: str) -> str | None:
    """Return the value of a variable of an image; PATH has a default, so that `ENV PATH=/opt/bin:$PATH` adds to it."""
    return environment(settings).get(name, DEFAULT_PATH if name == "PATH" else None)


def _ports(texts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", text, re.IGNORECASE)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last < 65536:
            raise ValueError(f"expected a port such as 80, 53/udp or 8000-8010, got {text}")
        found.update({f"{port}/{(match[3] or 'tcp').lower()}": {} for port in range(first, last + 1)})
    return found
