"""The instances' network: what every kind of network offers, and the choice of the kind.

There is one kind so far: `bridge.BridgeNetwork`, in a network namespace that root or an ordinary user has made. Another
kind is one more class with the methods of `Network` in a file next to that one, and one more line in `network_of`. It
records what it makes in the journal, as `process` if it is only a helper process.
"""

from __future__ import annotations

from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Protocol

    from vmctl.journal import Journal

    class Owner(Protocol):
        """Who gets a place in a network: all that a network knows of an instance."""

        name: str  # for messages
        id: str  # 8 hexadecimal digits, for the names of devices
        directory: str  # an address is reserved as long as this folder exists

    class Network(Protocol):
        """A network for instances. Methods raise errors of vmctl.errors; one raises OSError."""

        name: str

        def attach(self, owner: Owner, journal: Journal, held: str | None = None) -> Link:
            """Reserve an address and return the place; `held` is the address that an earlier call has returned."""

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

        def preview(self, owner: Owner) -> Link:
            """Return a place as an instance might get it; makes and reserves nothing."""

        def tap_command(self, link: Link) -> str:
            """Return what one would type in place of `make_tap`."""


class Link(NamedTuple):
    """A place in a network; `device` is the name of the network's end of the cable, or of the tap."""

    network: Network
    owner: str
    address: str
    prefix: int
    gateway: str
    mac: str
    device: str


def network_of(choice: str) -> Network | None:
    """Return the network for a workload's `network:`, None if it needs no network of vmctl (`host`, `none`)."""
    if choice != "bridge":
        return None
    from vmctl.net.bridge import DEFAULT

    return DEFAULT


def attach(choice: str, owner: Owner, journal: Journal, held: str | None = None) -> Link | None:
    """Return the owner's place in the network of its choice, as `Network.attach` does, None if it needs none."""
    network = network_of(choice)
    return network.attach(owner, journal, held) if network else None
