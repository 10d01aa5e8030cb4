"""The key `network.egress`: what an instance may reach outside of its networks.

`all`, `none`, or a list of destinations, each an address, a network or a name, with or without ports: `203.0.113.0/24`,
`198.51.100.7:443`, `example.org:8000-8010`, `:53/udp` (any address). Everything else is refused to the instance.
"""

from __future__ import annotations

from _socket import inet_aton, inet_ntoa

from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec.networking import ALL, NONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vmctl.spec.rules import Wrong

MOST = 200  # destinations of one instance
_FORM = "an address, a network or a name, such as 203.0.113.0/24, 198.51.100.7:443, example.org:443 or :53/udp"
_INNER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")  # of a label of a name
_PROTOCOLS = ("tcp", "udp")


class Destination(NamedTuple):
    """Where packets may go: addresses from `first` to `last`, or those of a name; ports from `low` to `high`."""

    name: str = ""
    first: int = 0
    last: int = 0xFFFFFFFF
    protocol: str = ""  # tcp, udp; empty: each, and with ports both of these
    low: int = 0
    high: int = 65535

    def has_ports(self) -> bool:
        """Return whether only some ports are meant."""
        return (self.low, self.high) != (0, 65535)


def parse(text: str) -> Destination:
    """Return the destination of a text. Raises ValueError; its text begins after "expected"."""
    host, ports = _split(text)
    numbers, slash, protocol = ports.partition("/")
    low, dash, high = numbers.partition("-")
    is_range = _is_number(low) and (_is_number(high) or not dash)
    if not (host or ports) or (numbers and not is_range) or (slash and protocol not in _PROTOCOLS):
        raise ValueError(f"{_FORM}, not {text[:80]!r}")
    found = Destination(protocol=protocol)
    if numbers:
        found = found._replace(low=int(low), high=int(high or low))
        if not 0 < found.low <= found.high < 65536:
            raise ValueError(f"ports from 1 to 65535, the lower one first, not {text[:80]!r}")
    return _with_host(found, host.lower()) if host else found


def _is_number(text: str) -> bool:
    return len(text) <= 5 and text.isascii() and text.isdigit()


def _split(text: str) -> tuple[str, str]:
    """Return host and ports: what is behind the only colon, or a protocol behind the last slash."""
    if text.count(":") > 1 or text.startswith("["):
        raise ValueError(f"no IPv6, with which instances cannot leave, not {text[:80]!r}")
    host, colon, ports = text.partition(":")
    if colon:
        return host, ports
    before, slash, protocol = host.rpartition("/")
    if slash and protocol in _PROTOCOLS:
        return before, f"/{protocol}"
    return host, ""


def _with_host(found: Destination, host: str) -> Destination:
    base, slash, prefix = host.partition("/")
    if slash or not any(letter.isalpha() for letter in base):
        first, last = _network(base, slash, prefix)
        return found._replace(first=first, last=last)
    labels = host.split(".")
    if len(labels) < 2 or len(host) > 253 or not all(map(_is_label, labels)) or labels[-1].isdigit():
        raise ValueError(f"{_FORM}, not {host[:80]!r}")
    return found._replace(name=host)


def _is_label(text: str) -> bool:
    return 0 < len(text) <= 63 and _INNER.issuperset(text) and "-" not in (text[0], text[-1])


def _network(base: str, slash: str, prefix: str) -> tuple[int, int]:
    bits = int(prefix) if _is_number(prefix) and len(prefix) < 3 else -1 if slash else 32
    try:
        if inet_ntoa(inet_aton(base)) != base:  # inet_aton(3) takes 10.1 and 0x7f.1 too
            raise ValueError(base)
    except (OSError, ValueError):
        raise ValueError(f"{_FORM}, not {base[:80]!r}") from None
    if not 0 <= bits <= 32:
        raise ValueError(f"a network such as 203.0.113.0/24, not {base}/{prefix[:20]}")
    first, size = int.from_bytes(inet_aton(base), "big"), 1 << (32 - bits)
    if first % size:
        raise ValueError(
            f"the first address of a network before /{bits}: {inet_ntoa((first & -size).to_bytes(4, 'big'))}"
        )
    return first, first + size - 1


def wrong(egress: str | Sequence[str]) -> Iterator[Wrong]:
    """Yield what of the key cannot be used."""
    if isinstance(egress, str):
        if egress not in (ALL, NONE):
            yield (
                "network.egress",
                f"expected {ALL}, {NONE} or a list, got {egress[:80]!r}",
                f"[{egress[:80]}] is a list",
            )
        return
    if not 0 < len(egress) <= MOST:
        yield "network.egress", f"expected 1 to {MOST} destinations, got {len(egress)}", f"`{NONE}` forbids all"
    for i, text in enumerate(egress):
        try:
            parse(text)
        except ValueError as error:
            yield f"network.egress[{i}]", f"expected {error}", ""
