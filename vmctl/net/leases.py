"""The addresses of a subnet, and the leases of those in use.

A lease is a symbolic link named after the address. It points to the owner's folder and lasts as long as that folder.
A symbolic link is made whole or not at all, and reading it takes one system call. The leases of all networks share one
folder, which the caller has locked.
"""

from __future__ import annotations

import os
from _socket import inet_aton, inet_ntoa
from collections.abc import Collection, Iterator
from contextlib import suppress

from vmctl import paths
from vmctl.errors import ConflictError

_BRIDGE, _FIRST = 1, 2  # 0 is the network itself, the last address is for broadcasts


class Subnet:
    """An IPv4 network such as 192.0.2.0/24. Its first address is the bridge's, the others are for instances."""

    def __init__(self, text: str) -> None:
        base, _, prefix = text.partition("/")
        self.text = text
        self.prefix = int(prefix)
        self._base = int.from_bytes(inet_aton(base), "big")
        self._size = 1 << (32 - self.prefix)
        self.gateway = self._address(_BRIDGE)

    def __contains__(self, address: str) -> bool:
        return 0 <= int.from_bytes(inet_aton(address), "big") - self._base < self._size

    def first_free(self, used: Collection[str]) -> str:
        """Return the lowest address for an instance that is not in `used`. Raises ConflictError if all are."""
        for number in range(_FIRST, self._size - 1):
            address = self._address(number)
            if address not in used:
                return address
        raise ConflictError(f"every address of {self.text} is in use", hint="`vmctl rm` instances you no longer need")

    def _address(self, number: int) -> str:
        return inet_ntoa((self._base + number).to_bytes(4, "big"))


def mac_of(address: str) -> str:
    """Return the MAC for an address: locally administered, and unique in the switch as the address is."""
    return f"52:54:00:{inet_aton(address)[1:].hex(':')}"


def used(folder: str) -> set[str]:
    """Return the addresses with a lease, also of owners that are gone."""
    return {name for name in os.listdir(folder) if _is_address(name)}


def take(folder: str, address: str, owner: str) -> None:
    """Lease an address to the owner of a folder."""
    os.symlink(owner, os.path.join(folder, address))


def holds(folder: str, address: str, owner: str) -> bool:
    """Return whether the owner of a folder has the lease of an address."""
    try:
        return os.path.samefile(_owner(folder, address), owner)
    except FileNotFoundError:
        return False


def release(folder: str, address: str, owner: str) -> bool:
    """Give an address back if the owner of a folder has its lease; return whether it had."""
    if not holds(folder, address, owner):
        return False
    os.unlink(os.path.join(folder, address))
    return True


def in_use(folder: str) -> Iterator[str]:
    """Yield the leased addresses of owners that still exist; remove the leases of others on the way."""
    for address in used(folder):
        if os.path.exists(_owner(folder, address)):
            yield address
        else:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, address))


def _is_address(name: str) -> bool:
    return name[0].isdigit()  # the other file in the folder is the namespace's


def _owner(folder: str, address: str) -> str:
    """Return the folder to which a lease points. Raises FileNotFoundError if the address is not leased."""
    target = os.readlink(os.path.join(folder, address))
    if os.path.isabs(target):
        return target
    return os.path.join(paths.instances_root(), target.partition("/")[0])  # NAME/ID: the form of earlier versions
