"""The contract between the engine and one way to run a workload.

The engine calls, in this order: `check` (says everything that is missing, touches nothing), `prepare` (outside the
boot clock, repeatable), `start`, `observe` until ready, `signal`; and for the removal `undo` for every journal entry
that is not the host's own. A backend writes what it is about to make to `instance.journal` *before* it makes it.
A backend never prints, never exits, and never asks which other backends exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vmctl.instance import Instance
from vmctl.linux.events import Events
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.workload import Workload

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Protocol
else:
    Protocol = object


class Features(NamedTuple):
    """Abilities the engine asks for; it never asks for a mode's name."""

    own_kernel: bool = False
    own_network: bool = False
    volumes: bool = False
    tty: bool = False


class Problem(NamedTuple):
    """Something this host lacks or this mode cannot honour, and what to do about it."""

    text: str
    hint: str = ""


class Exit(NamedTuple):
    """How a workload ended: the code a shell would show (128+n for signal n), and who says so."""

    code: int
    source: str  # workload | signal | oom | vmctl


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
    """What one running instance takes of the host, in bytes; None where it could not be read."""

    pss_bytes: int | None  # sum of `pss_by_role`
    cgroup_bytes: int | None
    disk_bytes: int
    shared_disk_bytes: int  # of `shared_files`
    pss_by_role: Mapping[str, int] = {}  # workload, supervisor, forwarder, qemu
    vmm_bytes: int | None = None  # resident in a monitor but not the guest's memory; None without a monitor
    shared_files: tuple[str, ...] = ()  # other instances may have the same ones: each (device, inode) counts once


class Writable(NamedTuple):
    """The writable layer of an instance as a folder of the host: the upper directory of an overlay (overlayfs.rst).

    Owners are as the workload sees them. `made` are the paths inside at which the backend itself made a folder or an
    empty file, to mount on: no change of the workload's, unless it put something there.
    """

    folder: str  # only this process can be sure to reach it: it may begin with /proc/self/fd
    made: tuple[str, ...] = ()


class Backend(Protocol):
    """One mode. Raises only errors of vmctl.errors."""

    mode: str
    features: Features

    def check(self, work: Workload) -> list[Problem]:
        """Return all that stands in the way of running `work` here; empty when nothing does."""

    def explain(self, work: Workload) -> Iterator[Step]:
        """Yield every host step of a start, without taking any."""

    def prepare(self, inst: Instance) -> None:
        """Make everything that is not the start itself; set `inst.state.image_digest` and `inst.state.address`."""

    def start(self, inst: Instance, *, attached: bool = False) -> None:
        """Start the workload, mark T1, set `inst.state.pid`. Attached: its standard streams are this process's own."""

    def observe(self, inst: Instance) -> str:
        """Mark T4 and T5 if they have happened and return the phase reached, in a word."""

    def events(self, inst: Instance, *more: int) -> Events:
        """Return what wakes who waits for a running instance to say something or to end; more descriptors too."""

    def settled(self, inst: Instance) -> bool:
        """Return whether the system around the workload has come up, where there is one; raises where it could not."""

    def alive(self, inst: Instance) -> bool:
        """Return whether the instance runs. Cheap: asks the kernel, opens no connection."""

    def result(self, inst: Instance) -> Exit | None:
        """Return how the workload ended, None where it runs or nobody knows."""

    def attend(self, inst: Instance) -> Exit:
        """Stay with an attached workload until it ends; signals to this process are passed on."""

    def signal(self, inst: Instance, signum: int) -> None:
        """Send a signal to the workload; SIGKILL ends the instance whatever its state."""

    def exec(self, inst: Instance, command: Command) -> int:
        """Run one more command on this process's standard streams and return its exit code."""

    def footprint(self, inst: Instance) -> Footprint:
        """Return what the running instance takes of the host now."""

    def reads(self, work: Workload) -> list[str]:
        """Return the files and folders of the host that a start of `work` reads: what is emptied for a cold one."""

    def writable(self, inst: Instance, *, pause: bool) -> AbstractContextManager[Writable]:
        """Lend the writable layer, of a running instance too; `pause`: the workload is held meanwhile."""

    def undo(self, inst: Instance, entry: dict[str, Any]) -> None:
        """Unmake what one journal entry of this backend's own kinds announces, if it is there."""
