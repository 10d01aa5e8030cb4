"""The user namespace that this process is in: whose ids it has on the host, and how many (user_namespaces(7))."""

from __future__ import annotations

import os
from functools import cache

from vmctl.named import NamedTuple

_EVERY_ID = 0xFFFFFFFF


class Mapping(NamedTuple):
    """A line of uid_map: `length` ids from `inside` on are the ids from `outside` on of the parent namespace."""

    inside: int
    outside: int
    length: int


def is_host_root() -> bool:
    """Return whether this process is the host's root; uid 0 of a user namespace is not."""
    return os.geteuid() == 0 and _mappings() == (Mapping(0, 0, _EVERY_ID),)


def host_uid() -> int:
    """Return the uid that this process has on the host: that of the user also in the namespaces of this user."""
    uid = os.geteuid()
    return next(
        (line.outside + uid - line.inside for line in _mappings() if 0 <= uid - line.inside < line.length),
        uid,
    )


def ids() -> int:
    """Return how many ids from 0 on this namespace has without a gap: 1 if only this user is mapped."""
    end = 0
    for line in sorted(_mappings()):
        if line.inside != end:
            break
        end += line.length
    return end


def same_ids() -> str:
    """Return the mapping for a namespace in this one that has the same ids; a line may not cross one of this one's."""
    return "\n".join(f"{line.inside} {line.inside} {line.length}" for line in _mappings())


def forget() -> None:
    """Read the mappings anew; called after this process has entered another namespace."""
    _mappings.cache_clear()


@cache
def _mappings() -> tuple[Mapping, ...]:
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return tuple(Mapping(*map(int, line.split())) for line in file)
    except FileNotFoundError:  # a kernel without user namespaces
        return (Mapping(0, 0, _EVERY_ID),)
