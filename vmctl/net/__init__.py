"""The instances' networks: what every kind of network offers, and the choice of the kind.

There is one kind so far: `bridge.BridgeNetwork`, in a network namespace that root or an ordinary user has made. Another
kind is one more class with the methods of `Network` in a file next to that one, and one more line in `network_of`. It
records what it makes in the journal, as `process` if it is only a helper process.
"""

from __future__ import annotations

from vmctl.errors import VmctlError
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec import rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from vmctl.journal import Journal
    from vmctl.spec.workload import Joined, Workload

    class Owner(Protocol):
        """Who gets a place in a network: all that a network knows of an instance."""

        name: str  # for messages
        id: str  # 8 hexadecimal digits, for the names of devices
        directory: str  # an address is reserved as long as this folder exists

    class Network(Protocol):
        """A network for instances. Methods raise errors of vmctl.errors; one raises OSError."""

        name: str
        called: str  # the user's name for it
        internal: bool  # without a way out

        def attach(self, owner: Owner, journal: Journal, held: str | None = None, wish: Wish = ...) -> Link:
            """Reserve an address and return the place; `held` is the address that an earlier call has returned."""

        def serve(
            self, owner: Owner, journal: Journal, links: tuple[Link, ...], held: str | None, servers: Sequence[str]
        ) -> str:
            """Return the address of a name server for an owner with these places, the first of which is here.

            It asks `servers` about the names that it does not know.
            """

        def check_address(self, address: str) -> None:
            """Raise SpecError if no instance of this network can have the address."""

        def make_tap(self, link: Link) -> str:
            """Make the tap of a guest, connected and up, and return its name; repeatable. QEMU is to open it."""

        def plug(self, link: Link, pid: int) -> None:
            """Connect the network namespace of the process `pid`."""

        def configure_inside(self, link: Link) -> None:
            """Configure this process's network namespace; a container's first process calls it after `plug`.

            It is called after pivot_root(2), so it can import nothing. Raises OSError.
            """

        def enter(self) -> None:
            """Move this thread for good to where QEMU is started; only a process that does nothing else calls it."""

        def preview(self, owner: Owner, wish: Wish = ...) -> Link:
            """Return a place as an instance might get it; makes and reserves nothing."""

        def tap_command(self, link: Link) -> str:
            """Return what one would type in place of `make_tap`."""


STACK, SERVICE = "vmctl.stack", "vmctl.service"  # labels of an instance that is part of a stack


class Wish(NamedTuple):
    """What an instance asks of one of its networks."""

    number: int = 0  # of its interface there
    address: str | None = None  # None: the first free one
    names: tuple[str, ...] = ()  # by which the others find it; nobody else may have them
    hostname: str | None = None  # one more name, unless somebody has it
    group: str = ""  # who is of the same group may have the same names


ANY = Wish()


class Link(NamedTuple):
    """A place in a network; `device` is the name of the network's end of the cable, or of the tap."""

    network: Network
    owner: str
    address: str
    prefix: int
    gateway: str  # empty: this place is not its way out
    mac: str
    device: str
    inside: str = "eth0"  # its interface in the instance
    mtu: int = 1500
    names: tuple[str, ...] = ()  # by which the others in this network find it
    outside: tuple[tuple[str, str], ...] = ()  # address and name of what its egress rules name
    resolver: str = ""  # address of the name server that knows these names; empty: it does not exist
    search: tuple[str, ...] = ()  # domains, and options of resolv.conf(5), that its workload asks for
    options: tuple[str, ...] = ()


def network_of(name: str) -> Network | None:
    """Return the network of this name, None for `host` and `none`. Raises NotFoundError."""
    if name in ("none", "host"):
        return None
    from vmctl.net import bridge

    if name == bridge.DEFAULT.called:
        return bridge.DEFAULT
    from vmctl.net import catalog

    return catalog.find(name)


def attach(work: Workload, owner: Owner, journal: Journal, held: Mapping[str, str]) -> tuple[Link, ...]:
    """Return the owner's places in the networks of its workload, as `Network.attach` does; none if it needs none.

    `held` is the address in each network, by its name, that an earlier call has returned; "" is the name of its name
    server, if that is only its.
    """
    links = _each(work, owner, lambda network, name, wish: network.attach(owner, journal, held.get(name), wish))
    if not links:
        return links
    is_own = has_own_server(work, links)
    if is_own:
        address = links[0].network.serve(owner, journal, links, held.get(""), _servers(work, links))
        links = tuple(link._replace(resolver="" if number else address) for number, link in enumerate(links))
    from vmctl.net import leaving

    outside = leaving.apply(work, links, is_own=is_own)
    return (links[0]._replace(outside=outside), *links[1:])


def has_own_server(work: Workload, links: Sequence[Link]) -> bool:
    """Return whether the instance in these places has a name server that is only its: see joint.py."""
    return len(links) > 1 or bool(links and (asked := rules.lookups(work)) and asked.dns)


def _servers(work: Workload, links: Sequence[Link]) -> tuple[str, ...]:
    """Return the name servers that are asked for it: those that it asks for, or those of the host."""
    from vmctl.net.resolver import UPSTREAM

    if not any(link.gateway for link in links):
        return ()
    asked = rules.lookups(work)
    return (asked and asked.dns) or ((UPSTREAM,) if work.egress() == "all" else ())


def refusals(work: Workload) -> list[VmctlError]:
    """Return an error for each network of a workload that does not exist, or cannot have the address."""
    errors = []
    for one in work.joined():
        try:
            network = network_of(one.name)
            if network is not None and one.address is not None:
                network.check_address(one.address)
        except VmctlError as error:
            errors.append(error)
    if work.egress() != "all" or work.extra_hosts:
        from vmctl.net import leaving

        errors += leaving.refusals(work)
    if not errors and rules.lookups(work):
        from vmctl.net import lookups

        errors += lookups.refusals(work)
    return errors


def warnings(work: Workload, links: tuple[Link, ...]) -> list[str]:
    """Return a text if names that the workload has asked for are not known to others."""
    found = [f"extra_hosts: {name} reaches the services of this host's loopback" for name in rules.names_of_host(work)]
    if work.network == "bridge" or not links or links[0].resolver:
        return found
    return [
        *found,
        "the instances of its networks do not know each other by name: dnsmasq is not installed",
    ]


def hosts(links: Sequence[Link]) -> tuple[tuple[str, str], ...]:
    """Return the lines of /etc/hosts for places: address and names."""
    own = tuple((link.address, " ".join(link.names)) for link in links if link.names)
    return own + tuple(line for link in links for line in link.outside)


def name_servers(links: Sequence[Link]) -> str:
    """Return the content of /etc/resolv.conf for places; empty if there is no name server (resolv.conf(5))."""
    found = [f"nameserver {link.resolver}\n" for link in links if link.resolver]
    if not found:
        return ""
    first, options = links[0], links[0].options
    if not any(text.startswith("ndots:") for text in options):
        options = ("ndots:0", *options)  # so names of its networks come before those in a domain of `search`
    return f"{''.join(found)}search {' '.join(first.search) or '.'}\noptions {' '.join(options)}\n"


def preview(work: Workload, owner: Owner) -> tuple[Link, ...]:
    """Return the places that an instance might get; makes and reserves nothing."""
    return _each(work, owner, lambda network, name, wish: network.preview(owner, wish))


def _each(work: Workload, owner: Owner, place: Callable[[Network, str, Wish], Link]) -> tuple[Link, ...]:
    links: list[Link] = []
    for number, one in enumerate(work.joined()):
        network = network_of(one.name)
        assert network is not None  # `joined` has none of the others
        link = place(network, one.name, wish_of(work, owner, number, one))
        is_way_out = not network.internal and not any(before.gateway for before in links)
        links.append(link if is_way_out else link._replace(gateway=""))
    if links and (asked := rules.lookups(work)):
        links[0] = links[0]._replace(search=asked.dns_search, options=asked.dns_opt)
    return tuple(links)


def wish_of(work: Workload, owner: Owner, number: int, one: Joined) -> Wish:
    """Return what an instance asks of the network of its interface `number`."""
    service, stack = work.labels.get(SERVICE, ""), work.labels.get(STACK, "")
    names = dict.fromkeys(name.lower() for name in (owner.name, service, *one.aliases) if name and rules.is_alias(name))
    hostname = work.hostname if work.hostname and rules.is_alias(work.hostname) else None
    group = f"{stack}/{service}" if rules.is_alias(service) and (not stack or rules.is_name(stack)) else ""
    return Wish(number, one.address, tuple(names), hostname and hostname.lower(), group)
