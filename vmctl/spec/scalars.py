"""The texts for one value in a workload file and in a flag: `256M`, `8080:8000`, `./data:/data`.

Each parser raises ValueError; its text begins after "expected". The start path of `vmctl run` imports this module.
"""

from __future__ import annotations

import os

from vmctl.light import re
from vmctl.named import TYPE_CHECKING
from vmctl.spec import signals, units
from vmctl.spec.workload import (
    Bytes,
    Device,
    EnvFile,
    FileMode,
    HttpProbe,
    Port,
    Restart,
    Seconds,
    Secret,
    Signal,
    Tmpfs,
    Ulimit,
    Volume,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


_PORTS = "a port such as 8080:8000, 8000-8010:8000-8010, 80 (a free port of the host) or 0.0.0.0:53:53/udp"

_NUMERIC = frozenset("0123456789+-.eE")

# names of docker-run(1) -> RLIMIT_...; the values are those of setrlimit(2)
ULIMITS = ("core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack")


VOLUME_NAME_MAX = 128  # with the name of an instance it is the name of a lease, which has at most 255 bytes


def parse_port(text: str) -> Port:
    """Return the port, or ports, of `[[address:]host:]guest[/udp]`; each of both can be a range, host can be empty."""
    numbers, slash, protocol = text.partition("/")
    address, host, inner = _split(numbers, text)
    if (slash and protocol not in ("tcp", "udp")) or not text.isascii():
        raise ValueError(f"{_PORTS}, not {text!r}")
    _check_address(address)
    protocol = protocol or "tcp"
    first, last = _range(inner, text)
    count = last - first + 1
    if host in ("", "0"):
        return Port(address, 0, first, protocol, count)  # type: ignore[arg-type]
    host_first, host_last = _range(host, text)
    more = host_last - host_first + 1 - count
    if more and count > 1:
        raise ValueError(f"ranges of the same length, not {text!r}")
    return Port(address, host_first, first, protocol, count, max(0, more))  # type: ignore[arg-type]


def _split(text: str, whole: str) -> tuple[str, str, str]:
    """Return address, host and guest of a port without its protocol."""
    address, rest = "127.0.0.1", text
    if text.startswith("["):
        address, _, rest = text[1:].partition("]:")
    parts = rest.split(":")
    if len(parts) > 1 and "." in parts[0] and not text.startswith("["):
        address = parts.pop(0)
    inner = parts.pop()
    host = parts.pop() if parts else ""
    if parts or not address:
        raise ValueError(f"{_PORTS}, not {whole!r}")
    return address, host, inner


def _range(text: str, whole: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [int(part) if part.isdigit() and len(part) < 6 else 0 for part in (first, last if dash else first)]
    if not 0 < numbers[0] <= numbers[1] < 65536:
        raise ValueError(f"{_PORTS}, not {whole!r}")
    return numbers[0], numbers[1]


def _check_address(address: str) -> None:
    from _socket import AF_INET, AF_INET6, inet_pton  # `socket` takes 3 ms

    try:
        inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError:
        raise ValueError(f"an IP address before the ports, not {address!r}") from None


# of docker: shared labels of a security module, and hints for macOS; without effect, as in docker if there is neither
_WITHOUT_EFFECT = ("rw", "z", "Z", "cached", "consistent", "delegated")
_VOLUME = "a volume such as ./data:/data, data:/data, /data, or ./data:/data:ro"


def parse_volume(text: str) -> Volume:
    """Return the volume of `[source:]target[:options]`; options: ro, rw, nocopy, and those without effect here."""
    parts = text.split(":")
    source, target, *more = ["", text] if len(parts) == 1 else parts
    if len(more) > 1 or not target.startswith("/") or (not source and len(parts) > 1):
        raise ValueError(f"{_VOLUME}, not {text!r}")
    found = Volume(_source(source), target)
    for option in filter(None, ",".join(more).split(",")):
        if option == "ro":
            found = found._replace(read_only=True)
        elif option == "nocopy" and not found.is_path:
            found = found._replace(nocopy=True)
        elif option not in _WITHOUT_EFFECT:
            raise ValueError(f"{_VOLUME}; ro, rw or nocopy after the target, not {option!r} in {text!r}")
    return found


def _source(text: str) -> str:
    """Return a path, the name of a volume, or "" for a volume without a name."""
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise ValueError(
            f"the home folder of a user before the first colon; there is no user {path[1:].partition('/')[0]}"
        )
    if path.startswith(("/", "./", "../")) or path in (".", "..", ""):
        return path
    if not is_volume_name(path):
        raise ValueError(f"the name of a volume before the first colon, or ./{path} for the file or folder")
    return path


def is_volume_name(text: str) -> bool:
    """Return whether a text can be the name of a volume, which becomes a folder."""
    letters = text.replace("_", "").replace(".", "").replace("-", "")
    return len(text) <= VOLUME_NAME_MAX and text[:1].isalnum() and letters.isalnum() and letters.isascii()


def parse_tmpfs(text: str) -> Tmpfs:
    """Return the file system in memory of `target[:size=64M,mode=1777,noexec]`."""
    target, _, options = text.partition(":")
    if not target.startswith("/"):
        raise ValueError(f"a folder in memory such as /run or /run:size=64M,mode=755, not {text!r}")
    found = Tmpfs(target)
    for option in filter(None, options.split(",")):
        name, equals, value = option.partition("=")
        if name == "size" and equals:
            found = found._replace(size_bytes=_parse_size(value))
        elif name == "mode" and equals:
            found = found._replace(mode=_parse_mode(value))
        elif option in ("noexec", "exec"):
            found = found._replace(noexec=option == "noexec")
        elif option not in ("rw", "nosuid", "nodev"):  # these are always in effect
            raise ValueError(f"size=SIZE, mode=MODE or noexec after the folder, not {option!r}")
    return found


def _parse_device(text: str) -> Device:
    source, *more = text.split(":")
    access = more.pop() if more and not more[-1].startswith("/") else "rwm"
    target = more.pop() if more else source
    if not source.startswith("/") or more or not set(access) <= set("rwm") or len(set(access)) < len(access):
        raise ValueError(f"a device such as /dev/fuse or /dev/ttyUSB0:/dev/modem:rw, not {text!r}")
    return Device(source, target, access)


def parse_ulimit(text: str) -> Ulimit:
    """Return the limit of `name=soft[:hard]`; the hard limit is the soft one if it is not given."""
    match = re.fullmatch(r"([a-z]+)=(-1|unlimited|[0-9]{1,19})(?::(-1|unlimited|[0-9]{1,19}))?", text)
    if not match or match[1] not in ULIMITS:
        raise ValueError(f"a limit such as nofile=1024:2048, by one of the names {', '.join(ULIMITS)}, not {text!r}")
    soft, hard = ((None if part in ("-1", "unlimited") else int(part)) for part in (match[2], match[3] or match[2]))
    if hard is not None and (soft is None or soft > hard):
        raise ValueError(f"a soft limit that is not above the hard one, not {text!r}")
    return Ulimit(match[1], soft, hard)


def _parse_http(text: str) -> HttpProbe:
    match = re.fullmatch(r"([0-9]{1,5})(/[^\s]*)?", text)
    if not match or not 0 < int(match[1]) < 65536:
        raise ValueError(f"a port and a path such as 8000/health, not {text!r}")
    return HttpProbe(int(match[1]), match[2] or "/")


def _parse_restart(text: str) -> Restart:
    match = re.fullmatch(r"(no|always|unless-stopped|on-failure)(?::([0-9]{1,9}))?", text)
    if not match or (match[2] and match[1] != "on-failure"):
        raise ValueError(f"no, always, unless-stopped, on-failure or on-failure:3, not {text!r}")
    return Restart(match[1], int(match[2]) if match[2] else None)  # type: ignore[arg-type]


def _parse_secret(text: str) -> Secret:
    given: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = {"source": "src", "file": "src", "name": "id"}.get(name, name)
        if not equals or name not in ("id", "src", "env", "mode") or name in given:
            raise ValueError(f"a secret such as id=db,src=./db.txt or id=db,env=DB_PASSWORD, not {text!r}")
        given[name] = value
    if not given.get("id"):
        raise ValueError(f"a secret with id=NAME, not {text!r}")
    source = os.path.abspath(os.path.expanduser(given["src"])) if given.get("src") else None
    mode = _parse_mode(given["mode"]) if "mode" in given else FileMode(0o400)
    return Secret(given["id"], source, given.get("env"), mode)


def _parse_env_file(text: str) -> EnvFile:
    return EnvFile(os.path.abspath(os.path.expanduser(text)) if text else "", format="raw")


def _parse_mode(text: str) -> FileMode:
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise ValueError(f'an octal mode in quotes such as "0644", not {text!r}')
    return FileMode(int(text, 8))


def _parse_size(text: str) -> Bytes:
    return Bytes(units.parse_size(text))


def _parse_duration(text: str) -> Seconds:
    return Seconds(units.parse_duration(text))


def _parse_signal(text: str) -> Signal:
    return Signal(signals.number(text))


def parse_number(text: str) -> float:
    """Return a number as YAML has it: neither infinite nor "not a number"."""
    try:
        if set(text) <= _NUMERIC:  # Python takes more, such as `nan` and `1_000`
            return float(text)
    except ValueError:
        pass
    raise ValueError(f"a number such as 1.5, not {text[:40]!r}")


def parse_whole(text: str) -> int:
    """Return a whole number."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
        raise ValueError(f"a whole number, not {text[:40]!r}")
    return int(text)


def key_of(field: str) -> str:
    """Return the key of a field: the unit is in the name of the field, but in the value of the file."""
    return field.removesuffix("_bytes").removesuffix("_s")


# the name of a type in workload.py -> its parser
PARSERS: Mapping[str, Callable[[str], Any]] = {
    "float": parse_number,
    "int": parse_whole,
    "Bytes": _parse_size,
    "Seconds": _parse_duration,
    "FileMode": _parse_mode,
    "Signal": _parse_signal,
    "Port": parse_port,
    "Volume": parse_volume,
    "Device": _parse_device,
    "Tmpfs": parse_tmpfs,
    "Ulimit": parse_ulimit,
    "HttpProbe": _parse_http,
    "Restart": _parse_restart,
    "Secret": _parse_secret,
    "EnvFile": _parse_env_file,
}
