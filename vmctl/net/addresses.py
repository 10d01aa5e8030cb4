"""Addresses of instances: one symbolic link per address in use, named after it, that says whose it is.

A symbolic link is made whole or not at all, and reading it takes one system call. The switch's lock is held by the
caller. A lease whose instance is gone (its folder was removed by hand) counts for nothing and is swept up.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import instance
from vmctl.errors import ConflictError, NotFoundError

_NETWORK = "10.77"
_FIRST, _LAST = 2, 0xFFFE  # 0 names the network, 1 is the bridge, 0xFFFF is the broadcast address


def lowest_free(folder: str) -> str:
    """Return an address nobody holds. Raises ConflictError where all 65533 are taken."""
    taken = set(os.listdir(folder))
    for number in range(_FIRST, _LAST + 1):
        address = f"{_NETWORK}.{number >> 8}.{number & 255}"
        if address not in taken:
            return address
    raise ConflictError("every address of 10.77.0.0/16 is in use", hint="`vmctl rm` instances you no longer need")


def mac_of(address: str) -> str:
    """Return the MAC of an address: locally administered, and as unique on the switch as the address is."""
    high, low = (int(part) for part in address.split(".")[2:])
    return f"52:54:00:4d:{high:02x}:{low:02x}"


def take(folder: str, address: str, owner: str) -> None:
    """Write down that `owner` (NAME/ID) holds an address."""
    os.symlink(owner, os.path.join(folder, address))


def holds(folder: str, address: str, owner: str) -> bool:
    """Return whether `owner` holds an address."""
    try:
        return os.readlink(os.path.join(folder, address)) == owner
    except FileNotFoundError:
        return False


def release(folder: str, address: str, owner: str) -> None:
    """Give an address back, if `owner` is who holds it."""
    if holds(folder, address, owner):
        os.unlink(os.path.join(folder, address))


def any_in_use(folder: str) -> bool:
    """Return whether an instance that still exists holds an address; sweep up leases of others on the way."""
    for address in os.listdir(folder):
        if not address.startswith(_NETWORK):
            continue
        if _is_live(os.readlink(os.path.join(folder, address))):
            return True
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, address))
    return False


def _is_live(owner: str) -> bool:
    name, _, identity = owner.partition("/")
    try:
        return instance.load(name).state.id == identity
    except NotFoundError:
        return False
