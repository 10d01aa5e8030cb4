"""What a service gets from outside: variables, files of variables, secrets and configurations."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress

from vmctl.errors import SpecError
from vmctl.stacks import keys, shared
from vmctl.stacks.item import Place, near
from vmctl.stacks.parts import Parts
from vmctl.stacks.shared import Provided

_RUN = "/run/secrets/"


def arguments(place: Place, values: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a mapping or a list; those without a value have that of the caller, if there is one."""
    found = {}
    for name, part in place.pairs().items():
        if part.value is not None:
            found[name] = part.text()
        elif name in values:
            found[name] = values[name]
    return found


def environment(parts: Parts) -> None:
    """Set `env` from `environment`, or its native name."""
    places = [parts.found[name] for name in ("environment", "env") if name in parts.found]
    if len(places) > 1:
        raise places[1].error("environment is given too", "one of them is enough")
    for place in places:
        parts.draft.set("env", arguments(place, parts.context.values), place)


def env_file(parts: Parts, place: Place) -> None:
    """Set `env_file` from a text, or a list of texts and mappings."""
    for one in place.one_or_each():
        found = {"path": one} if one.is_text() else keys.check(one, keys.ENV_FILE, parts.context.warn)
        if "path" not in found:
            raise one.error("the key path is missing")
        path = found["path"].path_of_host()
        required = "required" not in found or found["required"].flag()
        if required and not os.path.exists(path):
            hint = "{path: FILE, required: false}: it may be missing"
            parts.missing.append(one.error(f"the file {path} does not exist", hint))
        raw = "format" in found and found["format"].text() == "raw"
        parts.draft.add("env_file", {"path": path, "required": required, "format": "raw" if raw else "quoted"}, one)


def secrets(parts: Parts, place: Place) -> None:
    """Set `secrets` from names of secrets of the stack, or mappings."""
    for one in place.each():
        provided, target, mode = _use(one, parts.context.secrets, "secret", parts)
        name = target.removeprefix(_RUN)
        if "/" in name:
            raise one.error(f"secrets are in /run/secrets, not at {target}", "target: NAME")
        source = {"file": provided.file} if provided.file else {"env": provided.variable}
        if provided.file and not os.path.isfile(provided.file):
            parts.missing.append(provided.place.error(f"the file {provided.file} does not exist"))
        if provided.variable and provided.variable not in parts.context.values:
            parts.missing.append(provided.place.error(f"the variable {provided.variable} is not set"))
        parts.draft.add("secrets", {"name": name, "mode": f"{mode or 0o400:04o}", **source}, one)


def configs(parts: Parts, place: Place) -> None:
    """Add configurations of the stack to `files`."""
    for one in place.each():
        provided, target, mode = _use(one, parts.context.configs, "config", parts)
        try:
            raw = shared.content(provided, parts.context.values)
        except SpecError as error:
            parts.missing.append(error)
            continue
        path = target if target.startswith("/") else f"/{target}"
        document = {"path": path, "mode": f"{mode or 0o444:04o}", "base64": b64encode(raw).decode()}
        with suppress(UnicodeDecodeError):
            document["content"] = raw.decode()
            del document["base64"]
        parts.draft.add("files", document, one)


def _use(place: Place, known: Mapping[str, Provided], what: str, parts: Parts) -> tuple[Provided, str, int | None]:
    """Return what a service uses of the secrets or configurations, its place inside and its mode."""
    found = {"source": place} if place.is_text() else keys.check(place, keys.SECRET_USE, parts.context.warn)
    if "source" not in found:
        raise place.error("the key source is missing")
    name = found["source"].text()
    if name not in known:
        raise place.error(f"the {what} {name} is not declared", near(name, known))
    target = found["target"].text() if "target" in found else name
    return known[name], target, found["mode"].octal() if "mode" in found else None
