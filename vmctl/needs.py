"""What a mode needs of a host: each need is looked at when it is asked for, and `vmctl doctor` shows what was found.

Abilities of the kernel are tried, not deduced from versions or from the user id; programs and libraries are looked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from vmctl.linux import abilities
from vmctl.named import NamedTuple
from vmctl.run import which


class Need(NamedTuple):
    """One need: `ok` is None if its lack costs comfort or speed only, or if looking cannot decide."""

    name: str
    ok: bool | None
    found: str
    purpose: str = ""  # what it is needed for, such as "image layers"
    hint: str = ""  # how to get it


class Package(NamedTuple):
    """What a program or library is called, and the packages it comes in."""

    names: tuple[str, ...]
    debian: str
    fedora: str
    arch: str

    def hint(self) -> str:
        """Return how to install it."""
        return f"Debian: apt install {self.debian}; Fedora: dnf install {self.fedora}; Arch: pacman -S {self.arch}"


def program(name: str, package: Package, purpose: str, *, required: bool = True) -> Need:
    """Return whether one of a package's programs is installed, and where."""
    if path := next(filter(None, map(which, package.names)), None):
        return Need(name, True, path, purpose)
    return Need(name, False if required else None, "not installed", purpose, package.hint())


def tried(name: str, action: Callable[[], None], purpose: str, hint: str) -> Need:
    """Return whether the kernel allows an action, which is tried in a child process."""
    error = abilities.failure_of(action)
    if error is None:
        return Need(name, True, "works", purpose)
    return Need(name, False, f"refused: {error.strerror}", purpose, root_first(error, hint))


def root_first(error: OSError, hint: str) -> str:
    """Return the hint for a refusal: for an ordinary user, to try again as root."""
    refused = error.errno in (errno.EPERM, errno.EACCES)
    return "try again as root" if refused and os.geteuid() != 0 else hint


def network() -> Need:
    """Return whether this kernel can make the switch to which containers and guests are connected."""
    return tried("bridge, veth", abilities.build_switch, "network", "modprobe -a bridge veth")
