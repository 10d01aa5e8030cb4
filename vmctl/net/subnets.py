"""Subnets for networks: their texts, which overlap, and which one a new network gets."""

from __future__ import annotations

from _socket import inet_aton, inet_ntoa

from vmctl.errors import ConflictError
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    Range = tuple[int, int]  # first address, and how many there are

_BRIDGE, _FIRST = 1, 2  # 0 is the network itself, the last address is for broadcasts
LARGEST, SMALLEST = 16, 29  # length of the prefix
_NEW = 24
_POOL = (78, 127)  # new networks are in 10.78.0.0/16 and so on
# this network, loopback, link-local, multicast and what is above it (RFC 6890)
_RESERVED = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")


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
        return 0 <= self.number(address) < self._size

    def is_for_instances(self, address: str) -> bool:
        """Return whether an instance can have the address."""
        return _FIRST <= self.number(address) < self._size - 1

    def number(self, address: str) -> int:
        """Return how many addresses are below this one."""
        return int.from_bytes(inet_aton(address), "big") - self._base

    def first_free(self, used: Collection[str]) -> str:
        """Return the lowest address for an instance that is not in `used`. Raises ConflictError if all are."""
        for number in range(_FIRST, self._size - 1):
            address = self._address(number)
            if address not in used:
                return address
        raise self._full()

    def last_free(self, used: Collection[str]) -> str:
        """Return the highest address for an instance that is not in `used`. Raises ConflictError if all are."""
        for number in range(self._size - 2, _FIRST - 1, -1):
            address = self._address(number)
            if address not in used:
                return address
        raise self._full()

    def _full(self) -> ConflictError:
        return ConflictError(f"every address of {self.text} is in use", hint="`vmctl rm` instances you no longer need")

    def _address(self, number: int) -> str:
        return inet_ntoa((self._base + number).to_bytes(4, "big"))


def parse(text: str) -> Range:
    """Return the range of a subnet such as 10.9.0.0/24. Raises ValueError, whose text begins after "expected"."""
    base, _, prefix = text.partition("/")
    try:
        raw = inet_aton(base)
    except (OSError, UnicodeError, ValueError):
        raw = b""
    if not raw or inet_ntoa(raw) != base or not (prefix.isascii() and prefix.isdigit()):
        raise ValueError(f"a subnet such as 10.9.0.0/24, got {text[:40]!r}")
    if not LARGEST <= int(prefix[:4]) <= SMALLEST:
        raise ValueError(f"a subnet of /{LARGEST} to /{SMALLEST}, got {text[:40]}")
    found = _range(base, int(prefix))
    if found[0] % found[1]:
        aligned = inet_ntoa((found[0] - found[0] % found[1]).to_bytes(4, "big"))
        raise ValueError(f"the first address of the subnet, {aligned}/{prefix}, got {text}")
    if any(overlap(found, _range_of(reserved)) for reserved in _RESERVED):
        raise ValueError(f"a subnet that hosts can have, got {text}")
    return found


def overlap(one: Range, other: Range) -> bool:
    """Return whether two ranges have an address in common."""
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


def first_free(used: Sequence[Range]) -> str | None:
    """Return a subnet for a new network that is clear of all `used`, and if possible of the host's routes.

    None if there are no more.
    """
    pool = [f"10.{first}.{second}.0/{_NEW}" for first in range(_POOL[0], _POOL[1] + 1) for second in range(256)]
    routes = list(_routes())
    clear = (text for text in pool if not any(overlap(_range_of(text), other) for other in (*used, *routes)))
    return next(clear, None) or next((t for t in pool if not any(overlap(_range_of(t), other) for other in used)), None)


def _range_of(text: str) -> Range:
    base, _, prefix = text.partition("/")
    return _range(base, int(prefix))


def _range(base: str, prefix: int) -> Range:
    return int.from_bytes(inet_aton(base), "big"), 1 << (32 - prefix)


def _routes() -> Iterator[Range]:
    """Yield the networks to which the host has routes, but for the default one (proc(5), /proc/net/route)."""
    try:
        with open("/proc/net/route", encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        return
    for fields in map(str.split, lines):
        first, mask = (int.from_bytes(bytes.fromhex(fields[column]), "little") for column in (1, 7))
        if mask:
            yield first, (mask ^ 0xFFFFFFFF) + 1
