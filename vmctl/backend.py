"""The contract between the engine and one way to run a workload.

The engine calls, in this order: `check` (returns everything that is missing, touches nothing), `prepare` (outside the
boot clock, repeatable), which returns a `Start`; `begin` of it; `observe` of its `watch` until ready. Any other process
gets a `watch` of the instance from the backend, sends it a `signal`, and for the removal calls `undo` for every journal
entry that is not of the host's own kinds. A backend writes what it is about to make to `inst.journal` *before* it
makes it. It keeps nothing between two calls: what belongs to a start under way is in the `Start`. It never prints,
never exits, and never asks which other backends exist.

What only some modes can do is a class of its own (`HasFootprint`, `HasWritable`, `HasReads`); `backends.ability` asks
for it by its type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vmctl.instance import Instance
from vmctl.linux.events import Events
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.workload import Workload
from vmctl.writable import Writable as Writable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    from vmctl.needs import Need
else:
    Protocol = object


class Features(NamedTuple):
    """Abilities the engine asks for; it never asks for a mode's name."""

    own_kernel: bool = False
    own_network: bool = False
    volumes: bool = False
    tty: bool = False


class Option(NamedTuple):
    """A choice that only this mode has. The command line offers it as the flag `--NAME`."""

    name: str
    help: str
    choices: tuple[str, ...] = ()  # empty: any text
    metavar: str | None = None


class Problem(NamedTuple):
    """Something this host lacks or this mode cannot honour, and what to do about it."""

    text: str
    hint: str = ""


class Exit(NamedTuple):
    """How a workload ended: the code a shell would show (128+n for signal n), and who reports it."""

    code: int
    source: str  # workload | signal | oom | vmctl


class Attachment(NamedTuple):
    """How an attached workload is connected: to three descriptors, by default this process's standard streams."""

    streams: tuple[int, int, int] | None = None
    tty: bool = False  # it gets a terminal of its own, which is copied from and to this process's


class Command(NamedTuple):
    """One more command in a running instance. Empty fields mean: as the workload has them."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    user: str | None = None
    tty: bool = False
    stdin: bool = True


class Step(NamedTuple):
    """One line of `up --explain`: what happens on the host, its raw equivalent, and why."""

    what: str
    raw: str
    why: str = ""


class Footprint(NamedTuple):
    """What one running instance takes of the host, in bytes; None if it could not be read."""

    pss_bytes: int | None  # sum of `pss_by_role`
    cgroup_bytes: int | None
    disk_bytes: int
    shared_disk_bytes: int  # of `shared_files`
    pss_by_role: Mapping[str, int] = {}  # workload, supervisor, forwarder, qemu
    vmm_bytes: int | None = None  # resident in a monitor but not the guest's memory; None without a monitor
    shared_files: tuple[str, ...] = ()  # other instances may have the same ones: each (device, inode) counts once


class Watch(Protocol):
    """One process's view of one instance that has been started. Any process can have one; nothing has to be closed."""

    inst: Instance
    own_kernel: bool  # False: its sockets are this kernel's, which can be asked about them

    def alive(self) -> bool:
        """Return whether the instance runs. Cheap: asks the kernel, opens no connection."""

    def result(self) -> Exit | None:
        """Return how the workload ended; None while it runs, and if nobody knows."""

    def observe(self) -> str:
        """Mark T4 and T5 if they have happened and return the phase reached, in a word."""

    def events(self, *more: int) -> Events:
        """Return an object to wait on: it wakes on new output, on exit, and on the descriptors in `more`."""

    def settled(self) -> bool:
        """Return True once the guest system has booted (always True without one). Raises if booting failed."""


class Start(Protocol):
    """One start, prepared: a context that holds what this process needs for it, and never the instance itself.

    Leaving it closes descriptors and helpers of this process; the instance goes on.
    """

    inst: Instance
    watch: Watch

    def begin(self) -> None:
        """Start the workload, mark T1, set `inst.state.pid`."""

    def attend(self) -> Exit:
        """Stay with an attached workload until it ends; signals to this process are passed on."""

    def close(self) -> None:
        """Let go of what this process holds; repeatable."""

    def __enter__(self) -> Start:
        """Return itself."""

    def __exit__(self, *_: object) -> None:
        """Close."""


class Backend(Protocol):
    """One mode. Raises only errors of vmctl.errors. Made with its options by name: `VmBackend(accel="tcg")`."""

    mode: str
    features: Features
    options: tuple[Option, ...]

    def needs(self) -> Iterable[Need]:
        """Return what this mode needs of a host, each looked at now, for `vmctl doctor`."""

    def check(self, work: Workload) -> list[Problem]:
        """Return all that stands in the way of running `work` here; empty if nothing does."""

    def explain(self, work: Workload) -> Iterator[Step]:
        """Yield every host step of a start, without taking any."""

    def prepare(self, inst: Instance, attachment: Attachment | None = None) -> Start:
        """Make everything that is not the start itself; set `inst.state.image_digest` and `inst.state.address`.

        With an attachment the workload's streams are those descriptors; without, they go to the logs.
        """

    def watch(self, inst: Instance) -> Watch:
        """Return a view of an instance that any process may have started."""

    def signal(self, inst: Instance, signum: int) -> None:
        """Send a signal to the workload; SIGKILL ends the instance whatever its state."""

    def exec(self, inst: Instance, command: Command) -> int:
        """Run one more command on this process's standard streams and return its exit code."""

    def undo(self, inst: Instance, entry: dict[str, Any]) -> None:
        """Remove what one journal entry of this backend's own kinds announces, even if only part of it was made."""


class HasFootprint:
    """Ability of a backend: its instances' memory and disk can be measured."""

    ability = "measure what an instance takes of the host"

    def footprint(self, inst: Instance) -> Footprint:
        """Return what the running instance takes of the host now."""
        raise NotImplementedError


class HasWritable:
    """Ability of a backend: it can lend the writable layer of an instance."""

    ability = "lend the writable layer of an instance"

    def writable(self, inst: Instance, *, pause: bool) -> AbstractContextManager[Writable]:
        """Lend the writable layer, of a running instance too; `pause`: the workload is held meanwhile."""
        raise NotImplementedError


class HasReads:
    """Ability of a backend: it knows which files a start reads."""

    ability = "name the files that a start reads"

    def reads(self, work: Workload) -> list[str]:
        """Return the files and folders of the host that a start of `work` reads: what is evicted for a cold one."""
        raise NotImplementedError
