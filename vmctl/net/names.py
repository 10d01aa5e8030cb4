"""The names of a network's instances: one file per network in the form of hosts(5), which its name server reads.

The file is replaced whole, under the lock of the switch; the name server is woken by that (inotify(7)). Lookups ignore
case (RFC 4343), so all names are in lower case.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from vmctl.errors import ConflictError, UnavailableError
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net import switch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmctl.net import Link, Wish

_CLOSED = ".closed"  # ending of the folder of a name server without a way out
_HOST_NAME = "(host name)"  # in place of a group: such a name gives way to one that was asked for


class Known(NamedTuple):
    """A line of the file."""

    address: str
    names: tuple[str, ...]
    group: str = ""  # who is of the same group may have the same names

    def __str__(self) -> str:
        return f"{self.address}\t{' '.join(self.names)}\t# {self.group}\n"


def folder(bridge: str) -> str:
    """Return the folder of a network's names and of its name server."""
    return os.path.join(switch.folder(), "names", bridge)


def known(bridge: str) -> str:
    """Return the folder that contains the file of names only."""
    return os.path.join(folder(bridge), "known")


def check(bridge: str, called: str, wish: Wish) -> None:
    """Raise ConflictError if somebody else in the network has one of the names; the caller has the lock."""
    for line in _read(bridge):
        shared = set(wish.names) & set(line.names)
        if shared and line.group != _HOST_NAME and not (wish.group and wish.group == line.group):
            raise ConflictError(
                f"the name {min(shared)} is taken in the network {called} by {line.names[0]}, {line.address}",
                hint="use another name or alias, or another network",
            )


def add(bridge: str, address: str, wish: Wish) -> tuple[str, ...]:
    """Make the names of an address known in place of what it had, and return all that it has now."""
    lines = [_without(line, wish.names) for line in _read(bridge) if line.address != address]
    taken = {name for line in lines for name in line.names}
    lines.append(Known(address, wish.names, wish.group))
    has_hostname = wish.hostname is not None and wish.hostname not in taken | set(wish.names)
    if wish.hostname is not None and has_hostname:
        lines.append(Known(address, (wish.hostname,), _HOST_NAME))
    _write(bridge, lines)
    return (*wish.names, wish.hostname) if wish.hostname is not None and has_hostname else wish.names


def remove(bridge: str, address: str) -> None:
    """Forget the names of an address, if there are any; the caller has the lock."""
    lines = _read(bridge)
    if kept := [line for line in lines if line.address != address]:
        if kept != lines:
            _write(bridge, kept)
    elif lines:
        _write(bridge, [])


def is_alone(link: Link) -> bool:
    """Return whether the name server of a network does not run yet; the caller has the lock."""
    from vmctl.net import resolver

    return not resolver.runs(folder(link.network.name))


def serve_closed(bridge: str, address: str, port: int) -> None:
    """Have a second name server run, which asks nobody else, for instances that may not reach everything.

    The caller has the lock. Raises OSError.
    """
    from vmctl.net import resolver

    place = folder(f"{bridge}{_CLOSED}")
    os.makedirs(place, mode=0o755, exist_ok=True)
    os.chmod(place, 0o755)
    resolver.serve(place, [known(bridge)], address, (), port)


def serve(bridge: str, address: str) -> bool:
    """Have the name server of a network run at its address of the switch; return whether there can be one.

    One instance alone has its own names in /etc/hosts, so the server is started with the second one. The caller has the
    lock. Raises UnavailableError.
    """
    from vmctl.net import resolver

    if len({line.address for line in _read(bridge)}) < 2:
        return not resolver.missing()
    if resolver.runs(folder(bridge)):
        return True
    try:
        if not resolver.serve(folder(bridge), [known(bridge)], address):
            return False
        from vmctl.net import uplink

        uplink.has_server(address)  # a request that the kernel refuses takes it 10 ms: only once per network
        return True
    except OSError as error:
        raise UnavailableError(f"the name server of the network {bridge} cannot be started: {error}") from error


def _without(line: Known, names: Iterable[str]) -> Known:
    """Return a line of a host name without names that were asked for by somebody."""
    if line.group != _HOST_NAME:
        return line
    return line._replace(names=tuple(name for name in line.names if name not in names))


def _read(bridge: str) -> list[Known]:
    try:
        with open(os.path.join(known(bridge), "hosts"), encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        left, _, group = line.partition("\t# ")
        address, *names = left.split()
        found.append(Known(address, tuple(names), group))
    return found


def _write(bridge: str, lines: Iterable[Known]) -> None:
    """Replace the file. The temporary name begins with a dot: the name server reads every other file of the folder."""
    place = known(bridge)
    if not os.path.isdir(place):
        os.makedirs(place, mode=0o700)
        for path in (folder(bridge), place):
            os.chmod(path, 0o755)  # the name server is another user; nobody else can reach the folders above
    temporary, path = os.path.join(place, ".hosts"), os.path.join(place, "hosts")
    text = "".join(str(line) for line in lines if line.names)
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not _shortened(path, text):
            raise


def _shortened(path: str, text: str) -> bool:
    """Write a text over a longer one, which takes no space; return False if that one is not longer."""
    with suppress(FileNotFoundError), open(path, "r+", encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_size < len(text):
            return False
        file.write(text)
        file.truncate()
        return True
    return not text


def clear(bridge: str) -> None:
    """End the name server of a network and forget all names; the caller has the lock."""
    if not os.path.isdir(folder(bridge)):
        return
    clear(f"{bridge}{_CLOSED}")
    from vmctl.linux import filetree
    from vmctl.net import resolver

    resolver.end(folder(bridge))
    filetree.remove_tree(folder(bridge))
    with suppress(OSError):  # there are those of other networks
        os.rmdir(os.path.dirname(folder(bridge)))


def clear_all() -> None:
    """Do that for each network."""
    with suppress(FileNotFoundError):
        for bridge in os.listdir(os.path.dirname(folder(""))):
            clear(bridge)
        os.rmdir(os.path.dirname(folder("")))  # a full disk may have room for this folder only
