"""The way out: instances reach addresses outside of the switch, with no rule and no interface on the host.

The process pasta(1), of the package passt, reads packets from a tap and makes the same connections with its own
sockets, in the host's network. The packets are chosen by hostile instances. So pasta gets a user namespace in which it
has no privilege over the host or the switch, and the tap is in a network namespace of that one, the lobby (lobby.py). A
cable leads from the switch to a bridge in the lobby, whose other port is the tap:

    instance - bridge | switch: filter, NAT | wan0 - cable - bridge | lobby | tap - pasta - the host's sockets

The way out is made for the first instance that may leave and ends with the switch. pasta itself is started by the first
packet that leaves: the switch asks for its neighbour by ARP, and keeps the packets until pasta answers.

What the filter lets out is decided for each packet that leaves, never by an earlier packet of the same connection:
addresses are used again by other instances. See egress.py for rules of single instances.
"""

from __future__ import annotations

import os
import sys
from _socket import inet_aton
from contextlib import suppress

from vmctl import paths, trace
from vmctl.errors import UnavailableError
from vmctl.light import signal
from vmctl.linux import kernelfile, netlink, processes
from vmctl.linux import nftables as nft
from vmctl.named import TYPE_CHECKING
from vmctl.net import lobby, switch
from vmctl.net.resolver import UPSTREAM, uids

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM, PACKAGE = "pasta", "passt"
TABLE, FREE, ONLY, NEVER, SERVERS, TO_HOST = "vmctl_out", "free", "only", "never", "servers", "to_host"
ASKED = "asked"  # set of (user of a name server of one instance, address of a name server outside)
IP, REJECT = "ip", "reject with icmp type admin-prohibited"
RESOLVERS, ALONE, DNS, CLOSED = "resolvers", "alone", 53, 5353  # ports of name servers: with a way out, and without
WAN, _WAN_NAME = "wan0", b"wan0".ljust(16, b"\0")
OWN, GATEWAY, PREFIX = "169.254.77.2", "169.254.77.1", 29  # of the switch; of pasta, like UPSTREAM
_WAN_INDEX = 60
_ASK_MS, _ASK_TIMES = 20, 250  # pasta takes 30 to 100 ms until it answers
# This network, loopback, link-local addresses (a cloud's credentials are there), multicast and reserved ones.
_SPECIAL = (("0.0.0.0", 8), ("127.0.0.0", 8), ("169.254.0.0", 16), ("224.0.0.0", 3))


def allow(address: str, resolver: str, *, alone: bool, to_host: bool = False) -> str:
    """Let the instance with this address reach everything outside, and make the way out if necessary.

    `resolver` is the address of its name server; for `alone` see `name_servers`. `to_host`: the services of this host's
    loopback too, which pasta reaches for the address of the gateway.

    Return why there is no way out on this host, "" if there is one. The caller has the lock of the switch. Raises
    OSError if the kernel refuses a part of it.
    """
    if why := missing():
        with suppress(OSError):
            make_table()  # then what an instance sends is refused at once
        return why
    ensure()
    key, words = inet_aton(address), f"'{{ {address} }}'"
    free, host = (nft.new_element(TABLE, name, key, words, IP) for name in (FREE, TO_HOST))
    closed = [] if to_host else [nft.delete_element(TABLE, TO_HOST, key, words, IP)]  # only what exists can be removed
    switch.apply(*_never(), *name_servers(resolver, alone=alone), host, *closed, free)
    return ""


def name_servers(resolver: str, *, alone: bool) -> list[netlink.Request]:
    """Return the requests about a name server: all but free instances get the one on `CLOSED` in its place.

    Name servers may ask those of the host; if the instance is `alone`, its own does not run, and it asks them itself.
    """
    found = [nft.empty_set(TABLE, SERVERS, IP)]
    found += [nft.new_element(TABLE, SERVERS, uid.to_bytes(4, sys.byteorder), f"'{{ {uid} }}'", IP) for uid in uids()]
    if resolver:
        key, words = inet_aton(resolver), f"'{{ {resolver} }}'"
        found += [nft.new_element(TABLE, name, key, words, IP) for name in (RESOLVERS, ALONE)]
        found += [] if alone else [nft.delete_element(TABLE, ALONE, key, words, IP)]  # only what exists can be removed
    return found


def has_server(address: str) -> None:
    """Note that the name server with this address runs: an instance that was `alone` asks it from now on."""
    switch.delete(nft.delete_element(TABLE, ALONE, inet_aton(address), f"'{{ {address} }}'", IP))


def missing() -> str:
    """Return what this host lacks for a way out, "" if nothing."""
    if not any(_is_default(line.split()) for line in kernelfile.read("/proc/thread-self/net/route").splitlines()):
        return "this host has no default route"
    from vmctl.which import which

    return "" if which(PROGRAM) else f"{PROGRAM} is not installed (package {PACKAGE})"


def make_table() -> None:
    """Make the filter of the way out, by which nothing leaves, unless it exists. Raises OSError."""
    with suppress(FileExistsError):  # the requests are executed together or not at all
        switch.apply(*_table(), *_never())
        switch.inside(lambda: kernelfile.write(switch.FORWARDING, "1"))  # else packets to elsewhere vanish silently


def end() -> None:
    """End the way out, if there is one; the caller has the lock and removes the switch."""
    if process := recorded():
        processes.send(*process, signal.SIGKILL)
    with suppress(FileNotFoundError):
        os.unlink(_record())
    lobby.remove()


def exists() -> bool:
    """Return whether there is something to end."""
    return os.path.lexists(_record()) or lobby.exists()


def recorded() -> tuple[int, int] | None:
    """Return pid and start time of pasta, None if it does not run.

    The record is not next to the switch: that folder of an ordinary user is gone if the holder is killed, pasta is not.
    """
    try:
        pid, start, boot = os.readlink(_record()).split(" ")
        process = int(pid), int(start)
    except (OSError, ValueError):
        return None
    return process if boot == processes.boot_id() and processes.alive(*process) else None


def _record() -> str:
    return os.path.join(paths.state_root(), "uplink")


def _is_default(fields: list[str]) -> bool:
    """Return whether a line of /proc/net/route is about a default route: destination and mask are 0, it is up."""
    return len(fields) > 7 and fields[1] == fields[7] == "00000000" and bool(int(fields[3], 16) & 1)


def ensure() -> None:
    """Make the way out, unless it exists; the caller has the lock. Raises OSError, UnavailableError."""
    is_there = os.path.exists(lobby.network())
    if is_there and recorded():
        return
    if not is_there:
        end()  # of a user whose namespaces were killed; or a killed command has made a part of it
        make_table()
        lobby.make(_connect)
    _start()


def _connect(pid: int) -> None:
    """Connect the switch with the lobby, in which the process is."""
    try:
        switch.apply(*_cable(pid))
    except FileExistsError:  # a killed command has made it
        switch.apply(netlink.delete_link(WAN))
        switch.apply(*_cable(pid))


def _cable(pid: int) -> tuple[netlink.Request, ...]:
    return (
        netlink.new_pair(WAN, _WAN_INDEX, lobby.CABLE, lobby.CABLE_INDEX, pid, lobby.MTU),
        netlink.ask_often(_WAN_INDEX, _ASK_MS, _ASK_TIMES),
        netlink.new_address(_WAN_INDEX, OWN, PREFIX),
        netlink.default_route(_WAN_INDEX, GATEWAY),
    )


def _start() -> None:
    """Start the process that becomes pasta, and record it. pasta also ends when the file of the lobby is removed."""
    from vmctl.which import which

    program = which(PROGRAM)
    if program is None:
        raise UnavailableError(f"{PROGRAM} is not installed", hint=f"apt install {PACKAGE}")
    words = [PROGRAM, *_arguments()]
    if trace.on:
        from vmctl.linux import commands

        trace.step(commands.join(words), "in a PID namespace, in the background, at the first packet that leaves")
    pid = lobby.spawn(program, words)
    with suppress(FileNotFoundError):
        os.unlink(_record())
    try:
        os.symlink(f"{pid} {processes.start_time(pid)} {processes.boot_id()}", _record())
    except OSError:  # a full disk: nobody would know of it, and it looks for the file of the lobby only now and then
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _arguments() -> list[str]:
    """Return the arguments of pasta: it answers for every address on the tap, and listens nowhere."""
    return [
        *("--foreground", "--quiet", "--ipv4-only", "--runas", "0"),
        *("--userns", lobby.users(), "--netns", lobby.network(), "--ns-ifname", lobby.TAP),
        *("--address", OWN, "--netmask", str(PREFIX), "--mtu", str(lobby.MTU)),
        # its address leads to the services of the host's loopback interface, for those that the filter lets through
        *("--gateway", GATEWAY, "--dns-forward", UPSTREAM),
        *("--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"),
        *("--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"),
    ]


def _table() -> tuple[netlink.Request, ...]:
    """Return the requests that make the filter, with no instance in it."""
    enters = [nft.load_input_name(), nft.compare(_WAN_NAME)]
    leaves = [nft.load_output_name(), nft.compare(_WAN_NAME)]
    elsewhere = [nft.load_output_name(), nft.compare(_WAN_NAME, nft.UNEQUAL)]
    to, source = nft.load(nft.NETWORK, 16, 4), nft.load(nft.NETWORK, 12, 4)
    accept, drop, reject = nft.verdict("accept"), nft.verdict("drop"), nft.reject()
    others = [nft.load_user(), nft.compare(bytes(4), nft.UNEQUAL)]
    inward = (
        ([*enters, *nft.belongs(), accept], f"iifname {WAN} ct state established,related accept"),
        ([*enters, drop], f"iifname {WAN} drop"),
    )
    outward = (
        ([*elsewhere, accept], f"oifname != {WAN} accept"),  # decided in apart.py
        (
            [to, nft.compare(inet_aton(UPSTREAM)), source, nft.in_set(FREE), accept],
            f"ip daddr {UPSTREAM} ip saddr @{FREE} accept",
        ),
        (
            [to, nft.compare(inet_aton(GATEWAY)), source, nft.in_set(FREE), source, nft.in_set(TO_HOST), accept],
            f"ip daddr {GATEWAY} ip saddr @{FREE} ip saddr @{TO_HOST} accept",
        ),
        ([to, nft.in_set(NEVER), reject], f"ip daddr @{NEVER} {REJECT}"),
        ([source, nft.in_set(FREE), accept], f"ip saddr @{FREE} accept"),
        ([source, nft.jump_by(ONLY)], f"ip saddr vmap @{ONLY}"),
        ([reject], REJECT),
    )
    # a QEMU that its guest has taken over is in the switch, but not with vmctl's uid; name servers have others
    upstream = [to, nft.compare(inet_aton(UPSTREAM)), nft.load_user(), nft.in_set(SERVERS), accept]
    of_servers = [*leaves, *upstream], f"oifname {WAN} ip daddr {UPSTREAM} meta skuid @{SERVERS} accept"
    of_switch = [*leaves, *others, drop], f"oifname {WAN} meta skuid != 0 drop"
    return (
        nft.new_table(TABLE, IP),
        nft.new_set(TABLE, FREE, "ipv4_addr", family=IP),
        nft.new_set(TABLE, TO_HOST, "ipv4_addr", family=IP),
        nft.new_set(TABLE, SERVERS, "uid", family=IP),
        nft.new_set(TABLE, ASKED, "uid", "ipv4_addr", family=IP),
        nft.new_set(TABLE, RESOLVERS, "ipv4_addr", family=IP),
        nft.new_set(TABLE, ALONE, "ipv4_addr", family=IP),
        nft.new_ranges(TABLE, NEVER, IP),
        nft.new_jumps(TABLE, ONLY, IP),
        *_chain("forward", "drop", *inward, *outward),
        *_chain("input", "accept", *inward),
        *_chain("output", "accept", of_servers, _asked(leaves), of_switch),
        nft.new_chain(TABLE, "names", "prerouting", "accept", IP, kind="nat", priority=nft.DESTINATION),
        *(nft.new_rule(TABLE, "names", *rule, IP) for rule in _names(source, to)),
        nft.new_chain(TABLE, "source", "postrouting", "accept", IP, kind="nat", priority=nft.SOURCE),
        nft.new_rule(TABLE, "source", [*leaves, nft.masquerade()], f"oifname {WAN} masquerade", IP),
    )


def _asked(leaves: list[bytes]) -> tuple[list[bytes], str]:
    """Return the rule for the name servers of one instance; of another user than vmctl, they reach nothing else."""
    key = [nft.load_user(), nft.load(nft.NETWORK, 16, 4, 1), nft.in_set(ASKED)]
    port = [nft.load(nft.TRANSPORT, 2, 2), nft.compare(DNS.to_bytes(2, "big"))]
    words = f"oifname {WAN} meta skuid . ip daddr @{ASKED} th dport {DNS} accept"
    return [*leaves, *key, *port, nft.verdict("accept")], words


def _names(source: bytes, to: bytes) -> Iterator[tuple[list[bytes], str]]:
    """Yield the rules by which an instance that is not free gets a name server without a way out."""
    port = [nft.load(nft.TRANSPORT, 2, 2), nft.compare(DNS.to_bytes(2, "big"))]
    alone = [source, nft.in_set(FREE), to, nft.in_set(ALONE), *port, *nft.new_target_address(inet_aton(UPSTREAM))]
    yield alone, f"ip saddr @{FREE} ip daddr @{ALONE} th dport {DNS} dnat to {UPSTREAM}"
    yield [source, nft.in_set(FREE), nft.verdict("accept")], f"ip saddr @{FREE} accept"
    for name, number in (("udp", b"\x11"), ("tcp", b"\x06")):
        query = [to, nft.in_set(RESOLVERS), nft.load_protocol(), nft.compare(number), *port]
        words = f"ip daddr @{RESOLVERS} {name} dport {DNS} redirect to :{CLOSED}"
        yield [*query, *nft.redirect(CLOSED)], words


def _chain(hook: str, policy: str, *rules: tuple[list[bytes], str]) -> tuple[netlink.Request, ...]:
    chain = nft.new_chain(TABLE, hook, hook, policy, IP, priority=nft.FILTER)
    return (chain, *(nft.new_rule(TABLE, hook, expressions, words, IP) for expressions, words in rules))


def _never() -> list[netlink.Request]:
    """Return the requests that fill the set of addresses that no instance may reach: special ones and this host's.

    pasta makes connections from the host, and so could reach what listens there on any address.
    """
    found = [nft.empty_set(TABLE, NEVER, IP)]
    for first, after in forbidden():
        words = f"{netlink.text_of(first)}-{netlink.text_of(after - 1)}"
        found.append(nft.new_range(TABLE, NEVER, first.to_bytes(4, "big"), after.to_bytes(4, "big"), words, IP))
    return found


def forbidden() -> list[tuple[int, int]]:
    """Return the ranges of addresses that no instance may reach, sorted and apart: the first, and the one after."""
    ranges = [netlink.range_of(inet_aton(base), prefix) for base, prefix in _SPECIAL]
    merged: list[tuple[int, int]] = []
    for first, after in sorted([*ranges, *netlink.own_ranges()]):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(after, merged[-1][1])
        else:
            merged.append((first, after))
    return merged
