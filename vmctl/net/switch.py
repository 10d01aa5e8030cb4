"""The switch: a network namespace of vmctl that contains the bridges and the cables of all instances.

It is made for the first instance and removed with the last one. The host's interfaces, routes and firewall are never
touched. A bind mount of the namespace's file keeps it alive without a process (network_namespaces(7)).

Next to that file is one lease per address in use: a symbolic link that is named after the address. It points to the
owner's folder and lasts as long as that folder. A symbolic link is made whole or not at all, and reading it takes one
system call.
"""

from __future__ import annotations

import errno
import os
from _socket import inet_aton, inet_ntoa
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from vmctl import paths, trace
from vmctl.errors import StateError
from vmctl.linux import kernelfile, netlink
from vmctl.linux.locks import folder_locked
from vmctl.linux.syscalls import CLONE_NEWNET, MNT_DETACH, MS_BIND, mount, setns, umount2, unshare
from vmctl.linux.threads import in_thread
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

_THIS_NAMESPACE = "/proc/thread-self/ns/net"
_NO_IPV6 = ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6")
_BRIDGED = "/proc/sys/net/bridge/bridge-nf-call-iptables"
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_SOURCE_CHECK = "/proc/sys/net/ipv4/conf/all/rp_filter"


def folder() -> str:
    """Return the folder of the namespace's file and of the address leases."""
    return os.path.join(paths.run_root(), "net")


def path() -> str:
    """Return the file on which the namespace is mounted."""
    return os.path.join(folder(), "switch")


@contextmanager
def locked() -> Iterator[str]:
    """Lock the switch against all other commands and yield its folder, which is the lock. An empty one is removed."""
    with folder_locked(folder()):
        yield folder()


def exists() -> bool:
    """Return whether the namespace exists; a file left by a reboot or an umount does not count."""
    return bool(_inode())


def make(*furnishings: netlink.Request) -> None:
    """Make the namespace with what the requests create; the caller has the lock. Raises OSError if it is refused."""
    remove()
    in_thread(lambda: _make(furnishings))


def remove() -> None:
    """Remove the namespace and its file, if they exist, with name servers and the way out; the caller has the lock."""
    if os.path.isdir(os.path.join(folder(), "names")):
        from vmctl.net import names

        names.clear_all()
    from vmctl.net import uplink

    if uplink.exists():
        uplink.end()
    _drop()
    with suppress(OSError):  # not mounted, or no such file
        umount2(path(), MNT_DETACH)
    with suppress(FileNotFoundError):
        os.unlink(path())


def inside(work: Callable[[], T]) -> T:
    """Call `work` in a thread that is inside the switch, and return its result or raise its error.

    Sockets, devices and programs made by it belong to the switch for good, and can be used from outside.

    The thread ends there. It could not come back without CAP_SYS_ADMIN over the host's network namespace, which an
    ordinary user does not have (setns(2)). Raises StateError if the switch does not exist.
    """

    def entered() -> T:
        enter()
        return work()

    with _traced():
        return in_thread(entered)


def enter() -> None:
    """Move this thread into the switch for good. Raises StateError if the switch does not exist."""
    try:
        fd = os.open(path(), os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)
    except OSError as error:
        raise StateError(
            f"the network namespace {path()} cannot be entered: {error.strerror}",
            hint="it is removed with the last instance; `vmctl down` and `vmctl up` make a new one",
        ) from None
    if trace.on:
        trace.prefix = _prefix()


def apply(*requests: netlink.Request) -> None:
    """Execute requests in the switch, those for the packet filter last. Raises OSError for the first that is refused.

    Raises StateError without a switch.
    """
    with _traced():
        _connections().apply(requests)


def delete(request: netlink.Request) -> None:
    """Execute the request unless what it deletes does not exist."""
    try:
        apply(request)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EADDRNOTAVAIL):
            raise


def used(folder: str) -> set[str]:
    """Return the addresses with a lease, also of owners that are gone."""
    return {name for name in os.listdir(folder) if _is_address(name)}


def take(folder: str, address: str, owner: str) -> None:
    """Lease an address to the owner of a folder."""
    os.symlink(owner, os.path.join(folder, address))


def hand_over(folder: str, address: str, owner: str) -> None:
    """Let the lease of an address lead to another folder, that of the renamed owner."""
    temporary = os.path.join(folder, ".handed-over")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(owner, temporary)
    os.rename(temporary, os.path.join(folder, address))


def holds(folder: str, address: str, owner: str) -> bool:
    """Return whether the owner of a folder has the lease of an address."""
    try:
        return os.path.samefile(_owner(folder, address), owner)
    except OSError:
        return False


def has_owner(folder: str, address: str) -> bool:
    """Return whether an address has a lease whose owner exists."""
    try:
        return os.path.exists(_owner(folder, address))
    except OSError:  # gone already, or not a symbolic link, which every lease is
        return False


def release(folder: str, address: str) -> None:
    """Give an address back."""
    os.unlink(os.path.join(folder, address))


def in_use(folder: str) -> Iterator[str]:
    """Yield the leased addresses of owners that still exist; remove the leases of others on the way."""
    for address in used(folder):
        if has_owner(folder, address):
            yield address
        else:
            with suppress(OSError):  # gone already, or a folder, which vmctl does not make
                release(folder, address)


class _Connections:
    """The netlink sockets of this process in the switch: so it is entered once, not for every request."""

    def __init__(self) -> None:
        """Open them in the network namespace of this thread. Raises OSError."""
        self.pid = os.getpid()  # a forked child needs others, or it would read its parent's answers
        self.inode = 0  # of the namespace: another command may have made a new switch
        self._route, self._filter = netlink.Connection(), netlink.Connection(netlink.NETLINK_NETFILTER)

    def apply(self, requests: Sequence[netlink.Request]) -> None:
        """Execute requests."""
        for connection, kind in ((self._route, netlink.Request), (self._filter, netlink.Filter)):
            if of_kind := [request for request in requests if type(request) is kind]:
                connection.apply(*of_kind)

    def close(self) -> None:
        """Close the sockets: they would keep a removed namespace alive."""
        self._route.close()
        self._filter.close()


_kept: _Connections | None = None


def _connections() -> _Connections:
    inode = _inode()
    if _kept is None or (_kept.pid, _kept.inode) != (os.getpid(), inode):
        return _keep(inside(_Connections), inode)
    return _kept


def _keep(connections: _Connections, inode: int) -> _Connections:
    global _kept
    _drop()
    _kept, connections.inode = connections, inode
    return connections


def _drop() -> None:
    global _kept
    if _kept is not None:
        _kept.close()
        _kept = None


def _inode() -> int:
    """Return the number of the namespace's inode, which nothing else has while it exists; 0 if there is no switch."""
    try:
        found = os.stat(path())
        is_namespace = found.st_dev == os.stat(_THIS_NAMESPACE).st_dev  # all namespaces are files of one nsfs
    except FileNotFoundError:
        return 0
    return found.st_ino if is_namespace else 0


def _make(furnishings: Sequence[netlink.Request]) -> None:
    """Have this thread make the namespace and go there."""
    if trace.on:
        trace.step("unshare --net bash", "and in the new namespace, until `exit`:")
    unshare(CLONE_NEWNET)  # until the mount below nothing of it survives a crash
    _configure()
    connections = _Connections()
    connections.apply((netlink.set_up("lo"), *furnishings))
    os.close(os.open(path(), os.O_CREAT | os.O_CLOEXEC, 0o600))
    if trace.on:
        trace.step(f"touch {path()}")
    mount(_THIS_NAMESPACE, path(), None, MS_BIND)
    if trace.on:
        trace.step("exit")
    _keep(connections, _inode())


def disable_ipv6() -> None:
    """Disable IPv6 in the network namespace of this thread, or bridges send router solicitations and the like."""
    for setting in _NO_IPV6:
        with suppress(OSError):  # a kernel without IPv6
            kernelfile.write(setting, "1")


@contextmanager
def _traced() -> Iterator[None]:
    before = trace.prefix
    if trace.on:
        trace.prefix = _prefix()
    try:
        yield
    finally:
        trace.prefix = before


def _prefix() -> str:
    return f"nsenter --net={path()} "


def _configure() -> None:
    disable_ipv6()
    with suppress(OSError):  # only if br_netfilter is loaded: frames within a bridge would pass the filter of packets
        kernelfile.write(_BRIDGED, "0")
    # Inherited from the host; the switch would route between its bridges.
    kernelfile.write(FORWARDING, "0")
    # A bridge passes frames to some MACs (IEEE 802.1Q, 8.6.3) to the port itself, without its guard. The way back to an
    # instance is the bridge, so no packet with the address of one as its source is taken from a port.
    kernelfile.write(_SOURCE_CHECK, "1")


def _is_address(name: str) -> bool:
    """Return whether a name in the folder is one of a lease: another one is the namespace's."""
    try:
        return bool(inet_ntoa(inet_aton(name)) == name)
    except (OSError, UnicodeError):
        return False


def _owner(folder: str, address: str) -> str:
    """Return the folder to which a lease points. Raises OSError if the address is not leased."""
    target = os.readlink(os.path.join(folder, address))
    if os.path.isabs(target):
        return target
    return os.path.join(paths.instances_root(), target.partition("/")[0])  # NAME/ID: the form of earlier versions
