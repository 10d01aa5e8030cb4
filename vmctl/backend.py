"""The contract between the engine and a backend, which implements one mode.

The engine calls, in this order: `check`, which returns all problems and changes nothing; `prepare`, which is not timed,
is repeatable and returns a `Start`; the start's `begin`; and the `observe` of its `watch` until the workload is ready.
Any other process gets a `watch` of the instance from the backend and sends a `signal`. To remove an instance, `undo` is
called for each journal entry that is not of a kind of the host.

A backend records an object in `inst.journal` *before* it makes it. It keeps no state between two calls: the state of a
start is in the `Start`. It never prints, never exits, and never asks which other backends exist.
Abilities that only some modes have are separate classes (`Has...`); `backends.ability` looks for them by type. That of
snapshots and clones is in vmctl/snapshots/protocol.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext

from vmctl.errors import UnavailableError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.spec.workload import Resources, Workload

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Literal, Protocol

    from vmctl.copying.pack import Rules
    from vmctl.copying.place import Target
    from vmctl.linux.events import Events
    from vmctl.needs import Need
    from vmctl.steps import Step
    from vmctl.writable import Writable
else:
    Protocol = object


class Features(NamedTuple):
    """Features that the engine checks, instead of the name of the mode."""

    own_kernel: bool = False
    own_network: bool = False
    volumes: bool = False
    tty: bool = False

    def problems(self, work: Workload) -> list[Problem]:
        """Return the problems of a workload that asks for a feature that the mode lacks."""
        if self.tty or not (work.tty or work.stdin_open):
            return []
        return [Problem("tty, stdin_open: this mode has no terminals", "leave them out; `vmctl shell` opens one later")]


class Option(NamedTuple):
    """An option that only this mode has; on the command line it is the flag `--NAME`."""

    name: str
    help: str
    choices: tuple[str, ...] = ()  # empty: any text
    metavar: str | None = None


class Problem(NamedTuple):
    """A requirement that this host does not meet, or a key that this mode does not support, with a hint."""

    text: str
    hint: str = ""
    kind: type[VmctlError] = UnavailableError  # of the error, if this problem is the first one


class Exit(NamedTuple):
    """How a workload ended: the exit code as a shell shows it (128+n for signal n), and its source."""

    code: int
    source: str  # workload | signal | oom | vmctl


class ReportedExit(Exit):
    """An end that only the guest itself has reported: a hostile one can report anything."""


class Attachment(NamedTuple):
    """The three descriptors of an attached workload, by default this process's standard streams."""

    streams: tuple[int, int, int] | None = None
    tty: bool = False  # the workload gets a new terminal, connected to this process's terminal
    detach_keys: bytes = b""  # if these are typed, `Start.attend` returns, and the workload runs on


class Command(NamedTuple):
    """Another command for a running instance. Empty fields are taken from the workload."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    user: str | None = None
    tty: bool = False
    stdin: bool = True
    detach: bool = False  # it runs on without streams; the call returns 0 as soon as it runs
    detach_keys: bytes = b""  # if these are typed at its terminal, it runs on (vmctl.attach.session.DetachedError)


class Footprint(NamedTuple):
    """Memory and disk usage of a running instance in bytes; None if it could not be read."""

    pss_bytes: int | None  # sum of `pss_by_role`
    cgroup_bytes: int | None
    disk_bytes: int
    shared_disk_bytes: int  # size of `shared_files`
    pss_by_role: Mapping[str, int] = {}  # roles: workload, supervisor, forwarder, qemu
    vmm_bytes: int | None = None  # resident memory of QEMU without the guest's memory; None without QEMU
    shared_files: tuple[str, ...] = ()  # other instances may use the same files: each (device, inode) counts once


class Watch(Protocol):
    """A view of a started instance. Any process can have one; it does not have to be closed."""

    inst: Instance
    own_kernel: bool  # False: its sockets are in this kernel, which can report on them

    def alive(self) -> bool:
        """Return whether the instance runs. Cheap: asks the kernel, opens no connection."""

    def result(self) -> Exit | None:
        """Return how the workload ended; None while it runs, or if it is unknown."""

    def observe(self) -> str:
        """Mark T4 and T5 if they have happened, and return the phase as one word."""

    def events(self, *more: int) -> Events:
        """Return an object to wait on: it wakes on new output, on exit, and on the descriptors in `more`."""

    def settled(self) -> bool:
        """Return True once the guest system has booted (always True without one). Raises if booting failed."""


class Start(Protocol):
    """A prepared start: a context manager with this process's descriptors and helpers for it; the instance stays."""

    inst: Instance
    watch: Watch

    def begin(self) -> None:
        """Start the workload, mark T1, set `inst.state.pid`, and `inst.state.limits` to the limits in effect."""

    def attend(self) -> Exit:
        """Wait for the end of an attached workload and return how it ended; signals to this process are passed on.

        If the caller detaches from its terminal, `inst.left` is set, and it runs on.
        """

    def close(self) -> None:
        """Close the descriptors and helpers; repeatable."""

    def __enter__(self) -> Start:
        """Return itself."""

    def __exit__(self, *_: object) -> None:
        """Close."""


class Backend(Protocol):
    """One mode. Created with its options by name: `VmBackend(accel="tcg")`. Raises only errors of vmctl.errors."""

    mode: str
    features: Features
    options: tuple[Option, ...]

    def needs(self) -> Iterable[Need]:
        """Return the needs of this mode, checked now, for `vmctl doctor`."""

    def check(self, work: Workload) -> list[Problem]:
        """Return all problems of running `work` here; empty if there are no problems."""

    def explain(self, work: Workload) -> Iterator[Step]:
        """Yield every step of a start on the host; changes nothing."""

    def prepare(self, inst: Instance, attachment: Attachment | None = None) -> Start:
        """Make everything except the start itself; set `inst.state.image_digest` and `inst.state.address`.

        With an attachment, its descriptors are the workload's streams; without, the output goes to the logs.
        """

    def watch(self, inst: Instance) -> Watch:
        """Return a view of an instance, which this or another process has started."""

    def signal(self, inst: Instance, signum: int) -> None:
        """Send a signal to the workload; SIGKILL ends the instance in any state."""

    def exec(self, inst: Instance, command: Command) -> int:
        """Run another command on this process's standard streams and return its exit code."""

    def undo(self, inst: Instance, entry: dict[str, Any]) -> None:
        """Remove the object of a journal entry of this backend's kinds, even if only part of it was made."""


class HasFootprint:
    """The ability to measure memory and disk usage of instances."""

    ability = "measure memory and disk usage of an instance"

    def footprint(self, inst: Instance) -> Footprint:
        """Return the memory and disk usage of a running instance."""
        raise NotImplementedError


class HasWritable:
    """The ability to show the writable layer of an instance as a folder."""

    ability = "read the writable layer of an instance"

    def writable(self, inst: Instance, *, pause: bool) -> AbstractContextManager[Writable]:
        """Yield the writable layer, also of a running instance; with `pause` its workload is paused meanwhile."""
        raise NotImplementedError


class HasReads:
    """The ability to list the files that a start reads."""

    ability = "list the files that a start reads"

    def reads(self, work: Workload) -> list[str]:
        """Return the files and folders of the host that a start of `work` reads; a cold start evicts them first."""
        raise NotImplementedError


class HasCauses:
    """The ability to find out why an instance has ended without a report of how its workload ended."""

    ability = "find out why an instance has ended"

    def cause(self, inst: Instance) -> tuple[Literal["exited", "failed"], str]:
        """Return the status and the reason of an instance of which nothing runs any more."""
        raise NotImplementedError

    def reboots(self, inst: Instance) -> int:
        """Return how many times it has booted again since its start."""
        raise NotImplementedError


class HasOwnSize:
    """The ability to give an instance processors and memory of a certain size, also if its workload names none."""

    ability = "give an instance a machine of a certain size"

    def own_size(self, work: Workload) -> Resources:
        """Return the processors and memory that an instance of `work` has, by its own limits or by default."""
        raise NotImplementedError


class HasConsole:
    """The ability to connect the caller's terminal with the console of an instance."""

    ability = "connect with a console"

    def console(self, inst: Instance, keys: bytes) -> bool:
        """Connect until the instance ends, which returns True, or until the keys are typed, which returns False."""
        raise NotImplementedError


class HasOomKills:
    """The ability to count the processes of an instance that the kernel killed because memory ran out."""

    ability = "count processes that were killed because memory ran out"

    def oom_kills(self, inst: Instance) -> int:
        """Return the number since the start, of the first process and of all others; also of an ended instance."""
        raise NotImplementedError


class HasPause:
    """The ability to stop an instance where it is, and to let it go on."""

    ability = "pause an instance"

    def pause(self, inst: Instance) -> None:
        """Stop all processes of a running instance, or its guest. The caller holds `freezer.locked`."""
        raise NotImplementedError

    def resume(self, inst: Instance) -> None:
        """Let it go on; repeatable. The caller holds `freezer.locked`."""
        raise NotImplementedError


class HasCopy:
    """The ability to copy files, also with an instance that does not run: in a child process, which may enter it."""

    ability = "copy files"

    def reached(self, inst: Instance) -> AbstractContextManager[Instance]:
        """Yield the instance through which files are copied: itself, unless the mode needs another one for it."""
        return nullcontext(inst)

    def copy_out(self, inst: Instance, path: str, fd: int, rules: Rules, *, follow: bool) -> list[str]:
        """Write the tar of a path inside to a descriptor, as vmctl.copying.pack makes it; return what is left out."""
        raise NotImplementedError

    def copy_in(self, inst: Instance, target: Target, fd: int) -> list[str]:
        """Read such a tar to its end and write its files to a path inside; return what is left out."""
        raise NotImplementedError


class HasUsage:
    """The ability to show what an instance uses now."""

    ability = "show what an instance uses"

    def processes(self, inst: Instance) -> list[int]:
        """Return the processes of this host that a running instance consists of, without helpers of vmctl."""
        raise NotImplementedError

    def asked_inside(self, inst: Instance) -> Callable[[float], Mapping[str, int]]:
        """Return a function that returns within so many seconds what its own kernel reports: `memory_bytes`, or {}."""
        return lambda timeout_s: {}

    def listing(self, inst: Instance) -> list[tuple[str, str, str, str, str]]:
        """Return pid, user, processor time, resident memory and command of each process, as seen inside."""
        raise NotImplementedError


class HasReceipt:
    """The ability to prove where an instance runs."""

    ability = "prove where an instance runs"

    def receipt(self, inst: Instance) -> dict[str, Any]:
        """Return kernel, and boot id or namespaces, of the last start as reported from inside; {} before that."""
        raise NotImplementedError


class HasByHand:
    """The ability to start a workload by a shell script, with the lines of `explain`."""

    ability = "start a workload by a script"

    def by_hand(self, work: Workload) -> list[Problem]:
        """Return the keys of a workload that the lines of `explain` leave out; without any, they can be executed."""
        raise NotImplementedError


class HasUpdate:
    """The ability to change the limits of a running instance."""

    ability = "change the limits of an instance"

    def update(self, inst: Instance, wanted: Resources) -> dict[str, Any]:
        """Apply the limits that are not None; return those in effect, with the keys of `State.limits`.

        Raises UnavailableError for a limit that only a start can apply.
        """
        raise NotImplementedError
