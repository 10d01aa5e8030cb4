"""The key `network` as a mapping, from a file or from flags, and its rules; a text alone needs nothing of this."""

from __future__ import annotations

from vmctl.errors import SpecError
from vmctl.light import re
from vmctl.named import TYPE_CHECKING
from vmctl.spec import rules
from vmctl.spec.workload import Joined, NetworkOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST = 8  # networks of one instance: a guest has a slot of its bus for each
ALONE = ("none", "host")
ALL, NONE = "all", "none"  # what `egress` can be besides a list
_MOST_DOMAINS, _LONGEST = 32, 253
_DOMAIN = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.?"
_OPTION = r"[a-z][a-z0-9-]{0,31}(?::[0-9]{1,5})?"
_FLAG_HINT = "`--network NAME:alias=NAME,ip=ADDRESS`, or only NAME"


def normalized(options: NetworkOptions) -> str | NetworkOptions:
    """Return the mapping with a mapping for each network, or the name of the network if nothing else is given."""
    networks = tuple(Joined(one) if isinstance(one, str) else one for one in options.networks)
    name = networks[0].name if len(networks) == 1 else ""
    if name not in ("", *ALONE) and networks[0] == Joined(name) and options == NetworkOptions(options.networks):
        return name
    return options._replace(networks=networks)


def of_flags(
    names: Sequence[str],
    aliases: Sequence[str],
    address: str | None,
    reachable: Sequence[str] = (),
    lookups: Sequence[Sequence[str]] = ((), (), ()),
) -> str | NetworkOptions:
    """Return the key from the texts of flags: `NAME`, `NAME:alias=A,ip=B` or `name=NAME,alias=A,ip=B`.

    `address` is the one in the first network, `reachable` the key `egress`, `lookups` are the keys `dns`, `dns_search`
    and `dns_opt`. Raises SpecError.
    """
    if (
        len(names) == 1
        and (names[0] in ALONE or names[0].startswith(rules.BESIDE))
        and not (aliases or address or reachable or any(lookups))
    ):
        return names[0]
    networks = [_of_flag(text) for text in names or ["bridge"]]
    if address is not None:
        networks[0] = networks[0]._replace(address=address)
    only = reachable[0] if len(reachable) == 1 and reachable[0] in (ALL, NONE) else tuple(reachable) or ALL
    return normalized(NetworkOptions(tuple(networks), tuple(aliases), only, *map(tuple, lookups)))


def _of_flag(text: str) -> Joined:
    if text.startswith(rules.BESIDE):
        raise SpecError(f"--network: {text[:80]!r} cannot be combined with anything", hint="leave out the others")
    name, _, rest = text.partition(":")
    if "=" in name:
        name, rest = "", text
    found = Joined(name)
    for option in filter(None, rest.split(",")):
        key, _, value = option.partition("=")
        if key == "name" and not name:
            found = found._replace(name=value)
        elif key == "alias":
            found = found._replace(aliases=(*found.aliases, value))
        elif key == "ip":
            found = found._replace(address=value)
        else:
            raise SpecError(f"--network: expected alias=NAME or ip=ADDRESS, got {option[:80]!r}", hint=_FLAG_HINT)
    return found


def wrong(options: NetworkOptions) -> Iterator[rules.Wrong]:
    """Yield what of the mapping cannot be used: key, what was expected, hint."""
    names = [one.name for one in options.networks]
    yield from _lookups(options, set(names) & set(ALONE))
    if not 0 < len(names) <= MOST:
        yield "network.networks", f"expected 1 to {MOST} networks, got {len(names)}", "`network: none` is without any"
    for i, one in enumerate(options.networks):
        where = f"network.networks[{i}]"
        if one.name in ALONE:
            yield where, f"{one.name} cannot be combined with anything", f"`network: {one.name}`, not in a mapping"
        elif not rules.is_name(one.name):
            yield where, f"expected the name of a network, got {one.name[:80]!r}", "`vmctl network ls` lists them"
        elif one.name in names[:i]:
            yield where, f"the network {one.name} is given twice", ""
        if one.address is not None and not _is_address(one.address):
            yield f"{where}.address", f"expected an IPv4 address, got {one.address[:80]!r}", ""
        yield from _aliases(f"{where}.aliases", one.aliases)
    yield from _aliases("network.aliases", options.aliases)
    if options.egress not in (ALL, NONE):
        from vmctl.spec import egress

        yield from egress.wrong(options.egress)


def _lookups(options: NetworkOptions, alone: set[str]) -> Iterator[rules.Wrong]:
    """Yield what is wrong with the ways in which names are looked up; `alone` is `none` or `host`, or empty."""
    for key in ("dns", "dns_search", "dns_opt"):
        if getattr(options, key) and alone:
            what = "the host's network has its name servers" if "host" in alone else "it needs a network"
            yield f"network.{key}", f"{what}, and the network is {min(alone)}", "`files` can write /etc/resolv.conf"
    if len(options.dns) > MOST:
        yield "network.dns", f"expected at most {MOST} name servers, got {len(options.dns)}", ""
    for i, address in enumerate(options.dns):
        if not _is_address(address):
            yield f"network.dns[{i}]", f"expected an IPv4 address, got {address[:80]!r}", "IPv6 does not leave"
    if options.dns and options.egress == NONE:
        yield (
            "network.dns",
            "with egress none no name server can be reached",
            "the destination ADDRESS:53 in its place lets it ask one",
        )
    for i, domain in enumerate(options.dns_search):
        is_none = domain == "." and len(options.dns_search) == 1
        if not (is_none or re.fullmatch(_DOMAIN, domain)) or len(domain) > _LONGEST or i == _MOST_DOMAINS:
            expected = f"expected up to {_MOST_DOMAINS} domains such as example.org, or only '.', got {domain[:80]!r}"
            yield f"network.dns_search[{i}]", expected, ""
    for i, text in enumerate(options.dns_opt):
        if not re.fullmatch(_OPTION, text):
            expected = f"expected an option such as ndots:2, got {text[:80]!r}"
            yield f"network.dns_opt[{i}]", expected, "man 5 resolv.conf"


def _aliases(where: str, aliases: Sequence[str]) -> Iterator[rules.Wrong]:
    for alias in aliases:
        if not rules.is_alias(alias):
            expected = f"expected a name such as db, of up to 63 letters, digits, '-', '_' and '.', got {alias[:80]!r}"
            yield where, expected, "it becomes a name of DNS, neither an address nor localhost"


def _is_address(text: str) -> bool:
    from _socket import AF_INET, inet_pton

    try:
        inet_pton(AF_INET, text)
    except (OSError, UnicodeError, ValueError):
        return False
    return True
