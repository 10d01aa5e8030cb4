"""Rules for settings of the kernel, entries of /etc/hosts and devices; only a workload that has one imports this."""

from __future__ import annotations

import re
from collections.abc import Iterator
from socket import AF_INET, AF_INET6, inet_pton

from vmctl.named import TYPE_CHECKING
from vmctl.spec.rules import HOST_GATEWAY, is_plain, neighbour, place_of
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    Wrong = tuple[str, str, str]  # as in rules.py: key, what was expected of it, hint

# settings that belong to a namespace of a container: namespaces(7), Documentation/admin-guide/sysctl
OF_IPC = frozenset(f"kernel.{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split())
_DEVICES_OF_ALL = frozenset(
    "null zero full random urandom tty fd stdin stdout stderr pts ptmx shm mqueue console".split()
)
MOST_DEVICES = 64
_NAME = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_-]+)+")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?")


def wrong(work: Workload) -> Iterator[Wrong]:
    """Yield key, text and hint of each value that cannot be used."""
    for name, value in work.sysctls.items():
        yield from _setting(name, value, alone=work.network != "host" and not neighbour(work))
    yield from _devices(work)
    for i, text in enumerate(work.extra_hosts):
        name, _, address = text.partition(":")
        if not _HOST.fullmatch(name) or not (address == HOST_GATEWAY or is_address(address)):
            yield f"extra_hosts[{i}]", f"expected NAME:ADDRESS, got {text[:80]!r}", "db.example:192.0.2.7"
        elif address == HOST_GATEWAY and (work.egress() != "all" or work.network == "none"):
            yield (
                f"extra_hosts[{i}]",
                f"{HOST_GATEWAY} leads out of its networks, which is not allowed",
                "`egress: all`",
            )


def _devices(work: Workload) -> Iterator[Wrong]:
    seen: set[str] = set()
    if len(work.devices) > MOST_DEVICES:
        yield "devices", f"expected at most {MOST_DEVICES}, got {len(work.devices)}", ""
    for i, device in enumerate(work.devices):
        where, place = f"devices[{i}]", place_of(device.target)
        root, *below = place.split("/")[1:]
        if not is_plain(device.target) or root != "dev" or not below or below[0][:1] == ".":
            yield where, f"expected a place below /dev, got {device.target!r}", "/dev/ttyUSB0:/dev/modem"
        elif below[0] in _DEVICES_OF_ALL:
            yield where, f"{place} is a device that every instance has", "name another place: SOURCE:/dev/NAME"
        elif any(f"{place}/".startswith(f"{other}/") or f"{other}/".startswith(f"{place}/") for other in seen):
            yield where, f"the place {place} is given twice", "only the last one would be seen there"
        if not set(device.access) & set("rw"):
            yield where, f"expected r, w or rw as the access, got {device.access!r}", ""
        seen.add(place)


def _setting(name: str, value: str, *, alone: bool) -> Iterator[Wrong]:
    if not _NAME.fullmatch(name):
        yield "sysctls", f"expected a name such as net.core.somaxconn, got {name[:80]!r}", ""
    elif not (name.startswith(("net.", "fs.mqueue.")) or name in OF_IPC):
        yield "sysctls", f"{name} belongs to the whole host", f"net.*, fs.mqueue.* and {', '.join(sorted(OF_IPC))}"
    elif name.startswith("net.") and not alone:
        yield "sysctls", f"{name} would change the host, because of `network: host`", "leave it out"
    if not value or not value.isprintable() or not value.isascii() or len(value) > 1000:
        yield "sysctls", f"expected a value of {name[:80]} in one line, got {value[:80]!r}", ""


def is_address(text: str) -> bool:
    """Return whether a text is an IP address."""
    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def path(name: str) -> str:
    """Return the file of a setting, whose name was checked."""
    return f"/proc/sys/{name.replace('.', '/')}"
