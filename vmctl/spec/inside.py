"""Rules for settings of the kernel and for entries of /etc/hosts; only a workload that has one imports this."""

from __future__ import annotations

import re
from collections.abc import Iterator
from socket import AF_INET, AF_INET6, inet_pton

from vmctl.named import TYPE_CHECKING
from vmctl.spec.rules import HOST_GATEWAY, neighbour
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    Wrong = tuple[str, str, str]  # as in rules.py: key, what was expected of it, hint

# settings that belong to a namespace of a container: namespaces(7), Documentation/admin-guide/sysctl
OF_IPC = frozenset(f"kernel.{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split())
_NAME = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_-]+)+")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?")


def wrong(work: Workload) -> Iterator[Wrong]:
    """Yield key, text and hint of each value that cannot be used."""
    for name, value in work.sysctls.items():
        yield from _setting(name, value, alone=work.network != "host" and not neighbour(work))
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
