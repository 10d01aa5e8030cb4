"""The short and the long form of ports and mounts, and other texts of Compose, as the texts of a workload file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vmctl.stacks import keys
from vmctl.stacks.item import Place, near
from vmctl.stacks.keys import Warn
from vmctl.stacks.stack import Volume

_RANGE = r"([0-9]{1,5})(?:-([0-9]{1,5}))?"
_PORT = re.compile(rf"(?:(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?:{_RANGE})?:)?{_RANGE}(?:/(tcp|udp))?")
_MOST_PORTS = 1000  # of one entry
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|µs|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_NO_EFFECT = frozenset("rw z Z cached consistent delegated".split())


def command(place: Place) -> list[str]:
    """Return the words of a command; a text is split as a shell splits words, but no shell runs it."""
    if not place.is_text():
        return place.texts()
    try:
        return shlex.split(place.text())
    except ValueError as error:
        raise place.error(f"{str(error).lower()} in {place.kind()}") from None


def duration(place: Place) -> str:
    """Return a duration such as 1m30s in the form of a workload file."""
    parts = _DURATION.findall(place.text())
    if not parts or "".join(number + unit for number, unit in parts) != place.text():
        raise place.error(f"expected a duration such as 10s or 1m30s, got {place.kind()}")
    seconds = sum(float(number[:20]) * _SECONDS[unit] for number, unit in parts)
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def ports(place: Place, warn: Warn) -> Iterator[str]:
    """Yield the texts of one entry of `ports`, each `[address:]host:guest[/udp]`; ranges become single ports."""
    text = place.text() if place.is_text() else _long_port(place, warn)
    match = _PORT.fullmatch(text)
    if not match:
        raise place.error(f"expected a port such as 8080:80, 127.0.0.1:53:53/udp or 8000-8001:8000-8001, got {text!r}")
    address, protocol = f"{match[1]}:" if match[1] else "", f"/{match[6]}" if match[6] else ""
    guests = _numbers(place, match[4], match[5])
    hosts = _numbers(place, match[2], match[3]) if match[2] else [0] * len(guests)
    if len(hosts) != len(guests):
        raise place.error(f"{len(hosts)} ports of the host for {len(guests)} of the service", "ranges of the same size")
    for host, guest in zip(hosts, guests, strict=True):
        yield f"{address}{host}:{guest}{protocol}"


def _long_port(place: Place, warn: Warn) -> str:
    """Return the short form of a port that is a mapping."""
    found = keys.check(place, keys.PORT, warn)
    if "target" not in found:
        raise place.error("the key target is missing", "the port of the service")
    parts = [found[name].text() if name in found else "" for name in ("host_ip", "published", "target")]
    parts[0] = f"[{parts[0]}]" if ":" in parts[0] else parts[0]
    protocol = f"/{found['protocol'].text()}" if "protocol" in found else ""
    while len(parts) > 1 and not parts[0]:
        parts.pop(0)
    return ":".join(parts) + protocol


def _numbers(place: Place, first: str, last: str | None) -> list[int]:
    begin, end = int(first), int(last or first)
    if not 0 < begin <= end < 65536 or end - begin >= _MOST_PORTS:
        raise place.error(f"expected ports from 1 to 65535, at most {_MOST_PORTS}, got {first}-{last or first}")
    return list(range(begin, end + 1))


class Mount(NamedTuple):
    """One entry of `volumes`: a path of the host, a volume by its name in the file, or neither (anonymous)."""

    target: str
    path: str = ""
    volume: str = ""
    read_only: bool = False
    nocopy: bool = False
    tmpfs: str | None = None  # options: it is a file system in memory


def mount(place: Place, warn: Warn) -> Mount:
    """Return one entry of `volumes` of a service."""
    return _short_mount(place) if place.is_text() else _long_mount(place, warn)


def _short_mount(place: Place) -> Mount:
    parts = place.text().split(":")
    if len(parts) > 3 or not all(parts[:2]) or not parts[min(1, len(parts) - 1)].startswith("/"):
        raise place.error(f"expected ./data:/data, data:/data, /data or ./data:/data:ro, got {place.kind()}")
    options = set(filter(None, "".join(parts[2:]).split(",")))
    if wrong := options - _NO_EFFECT - {"ro", "nocopy"}:
        raise place.error(f"the option {sorted(wrong)[0]} is not available", "ro, rw, nocopy, z, Z")
    read_only, nocopy = "ro" in options, "nocopy" in options
    if len(parts) == 1:
        return Mount(parts[0])
    if parts[0].startswith((".", "/", "~")):
        path = Place(place.item.like(parts[0]), place.path).path_of_host()
        return Mount(parts[1], path=path, read_only=read_only)
    return Mount(parts[1], volume=parts[0], read_only=read_only, nocopy=nocopy)


def _long_mount(place: Place, warn: Warn) -> Mount:
    found = keys.check(place, keys.MOUNT, warn)
    kinds = {"bind": keys.BIND, "volume": keys.VOLUME_OPTIONS, "tmpfs": keys.TMPFS_OPTIONS}
    kind = found["type"].text() if "type" in found else "volume"
    if kind not in kinds:
        raise found["type"].error(f"mounts of type {kind[:40]} are not available", "bind, volume or tmpfs")
    if "target" not in found:
        raise place.error("the key target is missing")
    target = found["target"].text()
    options = keys.check(found[kind], kinds[kind], warn) if kind in found else {}
    read_only = "read_only" in found and found["read_only"].flag()
    if kind == "tmpfs":
        return Mount(target, tmpfs=_tmpfs(options))
    source = found.get("source")
    if kind == "bind":
        if source is None:
            raise place.error("the key source is missing")
        return Mount(target, path=source.path_of_host(), read_only=read_only)
    nocopy = "nocopy" in options and options["nocopy"].flag()
    return Mount(target, volume=source.text() if source else "", read_only=read_only, nocopy=nocopy)


def _tmpfs(options: Mapping[str, Place]) -> str:
    size = f"size={options['size'].text()}" if "size" in options else ""
    mode = f"mode={options['mode'].octal():o}" if "mode" in options else ""
    return ",".join(filter(None, (size, mode)))


def volume_name(mounted: Mount, place: Place, volumes: Mapping[str, Volume]) -> str:
    """Return the name of a volume on the host. Raises SpecError if the file does not declare it."""
    if mounted.volume not in volumes:
        hint = near(mounted.volume, volumes) if volumes else f"volumes: {{{mounted.volume}: }} at the end of the file"
        raise place.error(f"the volume {mounted.volume} is not declared; ./{mounted.volume} is the folder", hint)
    return volumes[mounted.volume].name
