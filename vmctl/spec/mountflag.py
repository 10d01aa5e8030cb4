"""The flag `--mount type=bind,source=./data,target=/data,readonly`, as the texts of `--volume` and `--tmpfs`."""

from __future__ import annotations

from collections.abc import Iterable

from vmctl.errors import SpecError
from vmctl.named import NamedTuple

_NAMES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_KEYS = {
    "bind": ("source", "target", "readonly"),
    "volume": ("source", "target", "readonly", "volume-nocopy"),
    "tmpfs": ("target", "tmpfs-size", "tmpfs-mode"),
}
_TRUTH = {"": True, "true": True, "1": True, "false": False, "0": False}
_HINT = "for instance --mount type=bind,source=./data,target=/data,readonly"


class Mounts(NamedTuple):
    """Texts as after `--volume` and `--tmpfs`."""

    volumes: list[str]
    tmpfs: list[str]


def parse(texts: Iterable[str]) -> Mounts:
    """Return the mounts of all flags. Raises SpecError."""
    found = Mounts([], [])
    for text in texts:
        given = _fields(text)
        kind = given.pop("type", "volume")
        if kind not in _KEYS:
            raise SpecError(f"--mount: expected the type bind, volume or tmpfs, got {kind!r}", hint=_HINT)
        if unknown := sorted(given.keys() - _KEYS[kind]):
            raise SpecError(f"--mount: type={kind} has no {unknown[0]}", hint=f"it has {', '.join(_KEYS[kind])}")
        if "target" not in given or (kind == "bind" and not given.get("source")):
            missing = "target" if "target" not in given else "source"
            raise SpecError(f"--mount: {missing} is missing in {text!r}", hint=_HINT)
        if kind == "tmpfs":
            found.tmpfs.append(_tmpfs(given))
        else:
            found.volumes.append(_volume(kind, given))
    return found


def _fields(text: str) -> dict[str, str]:
    parts = (part.partition("=") for part in text.split(","))
    return {_NAMES.get(name, name): value for name, _, value in parts}


def _volume(kind: str, given: dict[str, str]) -> str:
    source = given.get("source", "")
    if kind == "bind" and not source.startswith(("/", ".", "~")):
        source = f"./{source}"
    options = [word for key, word in (("readonly", "ro"), ("volume-nocopy", "nocopy")) if _is_set(key, given)]
    if ":" in source + given["target"] or (kind == "volume" and source.startswith(("/", ".", "~"))):
        raise SpecError(f"--mount: {source!r} cannot be the source of a {kind}", hint=_HINT)
    if options and not source:
        raise SpecError(f"--mount: a volume without a source cannot be {options[0]}", hint=_HINT)
    return ":".join(filter(None, (source, given["target"], ",".join(options))))


def _is_set(key: str, given: dict[str, str]) -> bool:
    value = given.get(key, "false")
    if value not in _TRUTH:
        raise SpecError(f"--mount: expected true or false for {key}, got {value!r}", hint=_HINT)
    return _TRUTH[value]


def _tmpfs(given: dict[str, str]) -> str:
    options = [f"{key[6:]}={given[key]}" for key in ("tmpfs-size", "tmpfs-mode") if key in given]
    return f"{given['target']}:{','.join(options)}" if options else given["target"]
