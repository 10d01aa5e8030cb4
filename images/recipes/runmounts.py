"""`RUN --mount=type=bind|cache|tmpfs|secret,...`: the options, read. What they make is in mounting.py.

See docs.docker.com/reference/dockerfile/#run---mount.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from images.recipes.steps import RunMount
from vmctl.spec import rules, units, userid

_OTHER_NAMES = {
    "dst": "target",
    "destination": "target",
    "src": "source",
    "readwrite": "rw",
    "readonly": "ro",
}
_FLAGS = ("ro", "rw", "required")
_OPTIONS = {
    "bind": ("target", "source", "from", "ro", "rw"),
    "cache": ("target", "id", "sharing", "mode", "uid", "gid", "ro", "rw"),
    "tmpfs": ("target", "size"),
    "secret": ("target", "id", "required", "mode", "uid", "gid"),
}
_SHARING = ("shared", "private", "locked")
_SECRETS = "/run/secrets/"


def read(text: str) -> RunMount:
    """Return the mount of a text such as `type=cache,target=/root/.cache`. Raises ValueError with what is wrong."""
    options = _options(text)
    kind = options.pop("type", "bind")
    if kind == "ssh":
        raise ValueError("--mount=type=ssh is not supported: use type=secret for a key")
    if kind not in _OPTIONS:
        raise ValueError(f"--mount: expected type={', '.join(_OPTIONS)}, got {kind[:40]}")
    for name in options:
        if name not in _OPTIONS[kind]:
            raise ValueError(f"--mount=type={kind}: {_reason(kind, name)}; supported: {', '.join(_OPTIONS[kind])}")
    target, name = options.get("target", ""), options.get("id", "")
    if kind == "secret":
        name = name or target.rpartition("/")[2]
        target = target or _SECRETS + name
        if not re.fullmatch(r"[A-Za-z0-9_$][A-Za-z0-9_.${}-]*", name):
            raise ValueError(f"--mount=type=secret: expected id=NAME, got {name[:40] or 'none'}")
    if "$" in options.get("from", ""):
        raise ValueError("--mount: from has no variables: give the image a name, FROM IMAGE AS NAME, and use from=NAME")
    if not target:
        raise ValueError(f"--mount=type={kind}: expected target=FOLDER")
    if "ro" in options and "rw" in options:
        raise ValueError("--mount: ro and rw exclude each other")
    return RunMount(
        kind,
        target,
        options.get("source", ""),
        options.get("from", ""),
        name,
        "ro" in options or (kind == "bind" and "rw" not in options),
        _one_of("sharing", options.get("sharing", "shared"), _SHARING),
        _id(options, "uid"),
        _id(options, "gid"),
        _mode(options.get("mode", "0400" if kind == "secret" else "0755")),
        units.parse_size(options["size"]) if "size" in options else None,
        "required" in options,
    )


def _options(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for field in text.strip("\"'").split(","):
        name, equals, value = field.partition("=")
        name = _OTHER_NAMES.get(name.lower(), name.lower())
        if name in found:
            raise ValueError(f"--mount: {name} is given twice")
        if name not in _FLAGS:
            if not equals or not value:
                raise ValueError(f"--mount: expected NAME=VALUE, got {field[:40] or 'nothing'}")
            found[name] = value
        elif _one_of(name, value.lower() or "true", ("true", "false", "1", "0")) in ("true", "1"):
            found[name] = value
    return found


def _reason(kind: str, name: str) -> str:
    if (kind, name) == ("secret", "env"):
        return "a secret is not put into a variable, read the file instead"
    if (kind, name) in (("cache", "from"), ("cache", "source")):
        return "a cache begins empty"
    return f"there is no option {name[:40] or '(empty)'}"


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"--mount: {name} is one of {', '.join(known)}, not {value[:40]}")
    return value


def _id(options: Mapping[str, str], name: str) -> int:
    try:
        return userid.number(options.get(name, "0"))
    except ValueError as error:
        raise ValueError(f"--mount: {name}: {error}") from None


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise ValueError(f"--mount: expected an octal mode such as 0644, got {text[:40]}")
    return int(text, 8)


def check_target(path: str) -> None:
    """Raise ValueError if nothing can be mounted at an absolute path."""
    try:
        rules.check_volume_target(path)
    except ValueError as error:
        raise ValueError(f"--mount: {error}") from None
