"""The switch: a network namespace of our own with one bridge in it, where every instance is plugged in.

It is made for the first instance and removed with the last one. The host's interfaces, routes and firewall are never
touched. A bind mount of the namespace's file keeps it alive without a process (network_namespaces(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import paths
from vmctl.errors import StateError
from vmctl.linux import netlink
from vmctl.linux.locks import folder_locked
from vmctl.linux.syscalls import CLONE_NEWNET, MNT_DETACH, MS_BIND, mount, setns, umount2, unshare

BRIDGE = "vmctl0"
BRIDGE_INDEX = 77  # chosen, not looked up: no instance needs to ask for it
# A bridge without a MAC of its own takes over those of its ports, and each change flushes even permanent neighbours.
BRIDGE_MAC = "52:54:00:4d:00:01"
ADDRESS, PREFIX = "10.77.0.1", 16

_THIS_NAMESPACE = "/proc/thread-self/ns/net"
_NO_IPV6 = ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6")


def folder() -> str:
    """Return the folder that holds the namespace's file and the address leases."""
    return os.path.join(paths.run_root(), "net")


def path() -> str:
    """Return the file on which the namespace is mounted."""
    return os.path.join(folder(), "switch")


@contextmanager
def locked() -> Iterator[str]:
    """Hold the switch against every other command and yield its folder, which is the lock and goes when empty."""
    with folder_locked(folder()):
        yield folder()


def exists() -> bool:
    """Return whether the namespace is there; a file left by a reboot or an umount is not it."""
    try:
        return os.stat(path()).st_dev == os.stat(_THIS_NAMESPACE).st_dev  # all namespaces are files of one nsfs
    except FileNotFoundError:
        return False


def ensure() -> None:
    """Make the namespace unless it is there; call with the lock held. Raises OSError where the kernel refuses."""
    if exists():
        return
    remove()
    home = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)  # of this thread only; until the mount below nothing of it outlives a crash
        _furnish()
        os.close(os.open(path(), os.O_CREAT | os.O_CLOEXEC, 0o600))
        mount(_THIS_NAMESPACE, path(), None, MS_BIND)
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)


def remove() -> None:
    """Let go of the namespace, whatever state it is in; call with the lock held."""
    with suppress(OSError):  # not mounted, or not there
        umount2(path(), MNT_DETACH)
    with suppress(FileNotFoundError):
        os.unlink(path())


@contextmanager
def entered() -> Iterator[None]:
    """Have this thread inside the switch: sockets, links and programs made here belong to it, and stay there.

    Takes about 20 microseconds. Raises StateError where there is no switch.
    """
    home = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter()
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


def _enter() -> None:
    try:
        fd = os.open(path(), os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)
    except OSError as error:
        raise StateError(
            f"the network namespace {path()} cannot be entered: {error.strerror}",
            hint="it goes with the last instance; `vmctl down` and `vmctl up` make it anew",
        ) from None


def _furnish() -> None:
    for setting in _NO_IPV6:  # else the bridge talks to guests of its own accord; a kernel without IPv6 is as good
        with suppress(OSError), open(setting, "w", encoding="ascii") as file:
            file.write("1")
    netlink.apply(
        netlink.set_up("lo"),
        netlink.new_bridge(BRIDGE, BRIDGE_INDEX, BRIDGE_MAC),
        netlink.new_address(BRIDGE_INDEX, ADDRESS, PREFIX),
    )
