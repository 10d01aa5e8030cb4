"""What an instance may reach outside of its networks: the choice between uplink.py and egress.py."""

from __future__ import annotations

from vmctl.errors import UnavailableError, VmctlError, advice
from vmctl.named import TYPE_CHECKING
from vmctl.net import switch, uplink
from vmctl.spec.rules import HOST_GATEWAY, lookups, names_of_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmctl.net import Link
    from vmctl.spec.workload import Workload


def apply(work: Workload, links: Sequence[Link], *, is_own: bool) -> tuple[tuple[str, str], ...]:
    """Allow the instance what its workload asks for, from each of its addresses.

    Only the place with a gateway is its way out; from the others nothing leaves. `is_own`: the name server of the first
    place is only of this instance. Return lines of hosts(5), address and
    name, for the names among its egress rules. Raises UnavailableError.
    """
    from vmctl.net import names

    asked, of_host = work.egress(), names_of_host(work)
    try:
        with switch.locked():
            if asked == "all":
                for link in links:
                    if link.gateway:
                        resolver = "" if is_own else link.resolver  # that of one instance is not put in place of others
                        is_alone = not is_own and names.is_alone(link)
                        why = uplink.allow(link.address, resolver, alone=is_alone, to_host=bool(of_host))
                        if why and of_host:
                            raise _no_way(why)
            hosts = tuple((uplink.GATEWAY, name) for name in of_host)
            if others := [link for link in links if asked != "all" or not link.gateway]:
                hosts += _restrict(asked, others, is_own=is_own)
            if is_own and (found := lookups(work)):
                from vmctl.net.lookups import let_ask

                let_ask(names.folder(links[0].resolver), found.dns)
            return hosts
    except OSError as error:
        raise UnavailableError(
            f"the way out of {work.name} cannot be made: {error.strerror or error}",
            hint=advice(error) or "`vmctl doctor` shows what is missing; `egress: none` needs no way out",
        ) from error


def _restrict(asked: str | tuple[str, ...], links: Sequence[Link], *, is_own: bool) -> tuple[tuple[str, str], ...]:
    """Restrict places; a name server that is only of this instance (`is_own`) asks nobody that it may not ask."""
    from vmctl.net import egress, names
    from vmctl.spec.egress import parse

    rules, hosts = egress.resolve(map(parse, () if isinstance(asked, str) else asked))
    if rules:
        uplink.ensure()
    for link in links:
        egress.restrict(link.address, rules if link.gateway else ())
        if link.resolver and not is_own:
            switch.apply(*uplink.name_servers(link.resolver, alone=names.is_alone(link)))
            names.serve_closed(link.network.name, link.gateway or link.resolver, uplink.CLOSED)
    return hosts


def _no_way(why: str) -> UnavailableError:
    return UnavailableError(f"extra_hosts: {HOST_GATEWAY} leads nowhere: {why}", hint="leave it out")


def refusals(work: Workload) -> list[VmctlError]:
    """Return an error for each egress rule that cannot be enforced here."""
    from vmctl.net import egress, network_of
    from vmctl.spec.egress import parse

    asked = work.egress()
    errors: list[VmctlError] = []
    if names_of_host(work) and work.network != "host":
        if why := uplink.missing():
            errors.append(_no_way(why))
        elif all(network.internal for network in map(network_of, (one.name for one in work.joined())) if network):
            errors.append(_no_way("all its networks are internal"))
    if isinstance(asked, str):
        return errors
    if why := uplink.missing():
        errors.append(
            UnavailableError(f"the egress rules cannot be enforced: {why}", hint="`egress: none` needs nothing")
        )
    for text in asked:
        try:
            egress.resolve([parse(text)])
        except VmctlError as error:
            errors.append(error)
    return errors
