"""The switch: a network namespace of vmctl that contains the bridges and the cables of all instances.

It is made for the first instance and removed with the last one. The host's interfaces, routes and firewall are never
touched. A bind mount of the namespace's file keeps it alive without a process (network_namespaces(7)).

Next to that file is one lease per address in use: a symbolic link that is named after the address. It points to the
owner's folder and lasts as long as that folder. A symbolic link is made whole or not at all, and reading it takes one
system call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vmctl import paths, trace
from vmctl.errors import StateError
from vmctl.linux import kernelfile, netlink
from vmctl.linux.locks import folder_locked
from vmctl.linux.syscalls import CLONE_NEWNET, MNT_DETACH, MS_BIND, mount, setns, umount2, unshare

_THIS_NAMESPACE = "/proc/thread-self/ns/net"
_NO_IPV6 = ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "/proc/sys/net/ipv6/conf/default/disable_ipv6")
_FORWARDING = "/proc/sys/net/ipv4/ip_forward"


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
    try:
        return os.stat(path()).st_dev == os.stat(_THIS_NAMESPACE).st_dev  # all namespaces are files of one nsfs
    except FileNotFoundError:
        return False


def make(furnish: Callable[[], None]) -> None:
    """Make the namespace and call `furnish` in it; the caller has the lock. Raises OSError if the kernel refuses."""
    remove()
    home = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    if trace.on:
        trace.step("unshare --net bash", "and in the new namespace, until `exit`:")
    try:
        unshare(CLONE_NEWNET)  # for this thread only; until the mount below nothing of it survives a crash
        _configure()
        furnish()
        os.close(os.open(path(), os.O_CREAT | os.O_CLOEXEC, 0o600))
        if trace.on:
            trace.step(f"touch {path()}")
        mount(_THIS_NAMESPACE, path(), None, MS_BIND)
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)
        if trace.on:
            trace.step("exit")


def separate_bridges() -> None:
    """Keep the switch, in which this thread is, from routing between its bridges. Raises OSError.

    A new namespace inherits the host's setting.
    """
    kernelfile.write(_FORWARDING, "0")


def remove() -> None:
    """Remove the namespace and its file, if they exist; the caller has the lock."""
    with suppress(OSError):  # not mounted, or no such file
        umount2(path(), MNT_DETACH)
    with suppress(FileNotFoundError):
        os.unlink(path())


@contextmanager
def entered() -> Iterator[None]:
    """Have this thread inside the switch. Sockets, links and programs made in the block belong to the switch for good.

    Takes about 20 microseconds. Raises StateError if the switch does not exist.
    """
    home = os.open(_THIS_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter()
        before = trace.prefix
        if trace.on:
            trace.prefix = f"nsenter --net={path()} "
        try:
            yield
        finally:
            trace.prefix = before
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


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
            hint="it is removed with the last instance; `vmctl down` and `vmctl up` make a new one",
        ) from None


def _configure() -> None:
    for setting in _NO_IPV6:  # else bridges send router solicitations and the like to guests
        with suppress(OSError):  # a kernel without IPv6
            kernelfile.write(setting, "1")
    netlink.apply(netlink.set_up("lo"))


def _is_address(name: str) -> bool:
    return name[0].isdigit()  # the other file in the folder is the namespace's


def _owner(folder: str, address: str) -> str:
    """Return the folder to which a lease points. Raises FileNotFoundError if the address is not leased."""
    target = os.readlink(os.path.join(folder, address))
    if os.path.isabs(target):
        return target
    return os.path.join(paths.instances_root(), target.partition("/")[0])  # NAME/ID: the form of earlier versions
