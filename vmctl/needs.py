"""What `vmctl doctor` checks and mends: the needs of a mode, and objects that have no owner.

Features of the kernel are tried, not deduced from versions or from the user id; programs and libraries are searched.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from vmctl.linux import abilities
from vmctl.named import NamedTuple
from vmctl.programs import which


class Orphan(NamedTuple):
    """An object without an owner; `remove` removes it, and raises VmctlError or OSError if that fails."""

    kind: str
    name: str
    remove: Callable[[], object]


class Need(NamedTuple):
    """A need and the result of its check; `ok` is None if it affects only comfort or speed, or cannot be decided."""

    name: str
    ok: bool | None
    found: str
    purpose: str = ""  # such as "image layers"
    hint: str = ""  # how to install or enable it


class Package(NamedTuple):
    """The names of a program or library, and the packages that contain it."""

    names: tuple[str, ...]
    debian: str
    fedora: str
    arch: str

    def hint(self) -> str:
        """Return how to install it."""
        return f"Debian: apt install {self.debian}; Fedora: dnf install {self.fedora}; Arch: pacman -S {self.arch}"


def program(name: str, package: Package, purpose: str, *, required: bool = True) -> Need:
    """Return the need for a program, with the path of the first of its names that is installed."""
    if path := next(filter(None, map(which, package.names)), None):
        return Need(name, True, path, purpose)
    return Need(name, False if required else None, "not installed", purpose, package.hint())


def tried(name: str, action: Callable[[], None], purpose: str, hint: str) -> Need:
    """Return the need for an action of the kernel, which is tried in a child process."""
    error = abilities.failure_of(action)
    if error is None:
        return Need(name, True, "works", purpose)
    return Need(name, False, f"refused: {error.strerror}", purpose, root_first(error, hint))


def root_first(error: OSError, hint: str) -> str:
    """Return the hint for an error; if it is about permissions and the user is not root, also to run vmctl as root."""
    refused = error.errno in (errno.EPERM, errno.EACCES)
    return f"{hint}, or run vmctl as root" if refused and os.geteuid() != 0 else hint


PASTA = Package(("pasta",), "passt", "passt", "passt")
DNSMASQ = Package(("dnsmasq",), "dnsmasq-base", "dnsmasq", "dnsmasq")


def network() -> tuple[Need, ...]:
    """Return the needs of networks: the bridge, names of instances, and the way out."""
    bridge = tried("bridge, veth", abilities.build_switch, "network", "modprobe -a bridge veth nf_tables")
    names = program("dnsmasq", DNSMASQ, "names of other instances", required=False)
    return bridge, names, program("pasta", PASTA, "the way out of networks", required=False)
