"""Instances: one directory each, with the workload, the state and the journal."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from vmctl import paths, records
from vmctl.errors import ConflictError, NotFoundError
from vmctl.instances import eventlog
from vmctl.instances.folder import LOCK_S, Folder, absent, is_lost, removal_hint
from vmctl.instances.timeline import Timeline
from vmctl.journal import Journal
from vmctl.light import signal
from vmctl.linux import filetree, locks, processes
from vmctl.named import TYPE_CHECKING
from vmctl.spec.rules import check_name, is_name
from vmctl.spec.workload import Workload

if TYPE_CHECKING:
    from typing import Any, BinaryIO, Literal

_OF_ALL_RUNS = (
    "id mode created image_digest address mac links boot stop_s stop_signal options own snapshot removes".split()
)
_NOTHING = (0, 0)  # the inode and the size of a log without content
_HEX_DIGITS = set("0123456789abcdef")

STATE = "state.jsonl"  # a line per change; the last whole line counts
STATE_BYTES = 1 << 16  # how much of its end is read
WORKLOAD = "workload.json"

# keys of vmctl 0.1 -> keys now
_OLD_KEYS = {"keeper_pid": "supervisor_pid", "extra": "own"}
_OLD_START = "keeper_start"  # in `extra`


class State:
    """The recorded state of an instance; whether it runs is always read from the kernel."""

    id: str = ""  # 8 hex digits, for names that the kernel keeps short
    mode: str = ""
    status: Literal["created", "running", "suspended", "exited", "failed"] = "created"
    created: float = 0.0  # seconds since the epoch
    pid: int | None = None  # pid on the host of the workload (container) or of QEMU (vm)
    pid_start: int | None = None  # start time in ticks of that process, because pids are used again
    supervisor_pid: int | None = None
    supervisor_start: int | None = None
    image_digest: str | None = None
    address: str | None = None
    mac: str | None = None
    links: dict[str, Any]  # address in each network, by the name of the network
    accelerator: str | None = None
    boot: str | None = None  # how a guest boots: direct | system | disk
    warm: str = ""  # of a guest that did not boot at its last start: whose memory it began with: template | snapshot
    stop_signal: int = signal.SIGTERM  # by which `stop` asks the workload to end
    stop_s: float = 10.0  # how long `stop` waits before SIGKILL, by default
    exit_code: int | None = None  # None after the exit if the code is unknown
    exit_source: str | None = None  # workload | signal | oom | vmctl | unknown
    exit_reporter: str | None = None  # host: seen by the host's kernel; guest: only the guest reports it
    reason: str = ""  # why it has failed, if the record shows that
    boot_id: str = ""  # of the kernel that ran at its last start; "" before this was recorded
    starts: int = 0  # how many times the workload was started
    waiting: bool = False  # made by `create`, and not started so far
    restarts: int = 0  # how many times vmctl has started it again since its user has
    short_runs: int = 0  # how many of the last runs were short
    stopped: bool = False  # its user has ended it, so it is not started again by itself
    health: dict[str, Any]  # the check of the last start, see vmctl/keeping/health.py; {} for none
    options: dict[str, Any]  # of its mode, as given at the first start
    warnings: list[str]  # of the last start, for the user
    weakened: list[str]  # what the workload asked for that makes the isolation of the last start weaker
    limits: dict[str, Any]  # in effect since the last start, see vmctl/limits.py
    receipt: dict[str, Any]  # kernel and namespaces of the last start, as the new process has reported them
    machine: dict[str, Any]  # hardware of the last start, with the keys of JSON; {} in a mode without a choice of it
    own: dict[str, Any]  # values that only the backend reads
    removes: bool = False  # it is removed when it has ended (`run --rm`)
    snapshot: dict[str, Any] | None = None  # of a clone: name and id of its snapshot, and what its start has cost

    def __init__(self, **values: Any) -> None:
        self.warnings, self.weakened, self.options, self.limits, self.own = [], [], {}, {}, {}
        self.health, self.machine = {}, {}
        self.links, self.receipt = {}, {}
        vars(self).update(values)

    @classmethod
    def read(cls, values: dict[str, Any], what: str) -> State:
        """Return the state with the keys and values of a file. Raises records.UnreadableError."""
        renamed = {_OLD_KEYS.get(key, key): value for key, value in values.items()}
        state = cls(**records.fields(cls, renamed, what))
        state.supervisor_start = state.own.pop(_OLD_START, state.supervisor_start)
        if len(state.id) != 8 or not set(state.id) <= _HEX_DIGITS:  # it becomes part of paths
            raise records.UnreadableError(f"{what} is damaged: {state.id[:20]!a} is not an id")
        if state.exit_code not in (None, *range(256)):
            raise records.UnreadableError(f"{what} is damaged: {state.exit_code} is not an exit code")
        return state

    def values(self) -> dict[str, Any]:
        """Return the values for a file: those that differ from the defaults."""
        return dict(vars(self))


class LostError(records.UnreadableError):
    """The files of an instance are blank after a loss of power: it can be removed like one that has ended."""


class Instance(Folder):
    """A named instance and its directory."""

    def __init__(self, name: str, work: Workload, state: State, timeline: Timeline | None = None) -> None:
        super().__init__(name, state.id)
        self.work = work
        self.state = state
        self.journal = Journal(self.path("journal"))
        self.timeline = timeline or Timeline()
        self.noted = eventlog.stage(state, self.timeline)  # of what has happened, this much is in the log of events
        self.record: BinaryIO | None = None  # see lastrecord.py
        self.logged: dict[str, tuple[int, int]] = {}  # log -> inode and size, when this process started it again

    @property
    def image(self) -> str:
        """The image: its digest once it was started, because the name may belong to another image by now."""
        return self.state.image_digest or self.work.image

    def has_output(self) -> bool:
        """Return whether the workload has written to its logs since this start."""
        return any(_place(path) != self.logged.get(path, _NOTHING) for path in (self.stdout_log, self.stderr_log))

    def forget_run(self) -> None:
        """Begin a new run: what was recorded of the last one is replaced, identity and address stay."""
        old = self.state
        kept = {name: getattr(old, name) for name in _OF_ALL_RUNS}
        self.state = State(
            **kept, starts=old.starts or int("T0" in self.timeline.marks_ns), boot_id=processes.boot_id()
        )
        self.timeline = Timeline()
        self.logged = {path: _place(path) for path in (self.stdout_log, self.stderr_log)}

    def save(self) -> None:
        """Append state and timeline as one line. Raises NotFoundError if the instance has been removed."""
        eventlog.note_progress(self)
        try:
            records.append(self.path(STATE), {**self.state.values(), "marks_ns": self.timeline.marks_ns})
        except FileNotFoundError:
            raise absent(self.name) from None

    def is_of_this_boot(self) -> bool:
        """Return whether the host has not been restarted since the instance was created, as far as it is known."""
        return self.state.boot_id in ("", processes.boot_id())

    def recall(self) -> None:
        """Read state and timeline again, because another command may have written them.

        Raises NotFoundError if the instance has been removed, even if a new one has the same name.
        """
        try:
            state, timeline = _read_state(self.directory, self.name)
        except FileNotFoundError:
            raise absent(self.name) from None
        if state.id != self.id:
            raise absent(self.name)
        self.state, self.timeline, self.noted = state, timeline, eventlog.stage(state, timeline)

    @contextmanager
    def locked(self, timeout_s: float = LOCK_S) -> Iterator[None]:
        """Hold the instance's lock; once it is held, the state is read again. Raises the errors of Folder.locked."""
        was_held = self.held is not None  # then nobody else can have changed it
        with super().locked(timeout_s):
            if not was_held:
                self.recall()
            yield


def _place(path: str) -> tuple[int, int]:
    """Return the inode and the size of a log; zeros if nothing is written to it."""
    with suppress(FileNotFoundError):
        if (status := os.stat(path)).st_size:
            return status.st_ino, status.st_size
    return _NOTHING


def create(
    work: Workload,
    mode: str,
    *,
    held: bool = False,
    options: Mapping[str, str] | None = None,
    state: Mapping[str, Any] = {},
) -> Instance:
    """Create the directory of a new instance. Raises ConflictError if the name is taken.

    `state` are values of its state that are known before its first start.

    With `held`, the instance's lock is held from the moment at which it has its name, until the caller leaves `locked`:
    a new instance that nobody has locked looks like one whose command was killed.
    """
    check_name(work.name)
    inst = Instance(work.name, work, _new_state(mode, options or {}, state))
    os.makedirs(paths.instances_root(), mode=0o700, exist_ok=True)
    remove_unfinished()
    # The directory appears with its content or not at all: without a mode it could not be removed properly.
    final, inst.directory = inst.directory, inst.unfinished()
    try:
        inst.held = _make_locked(inst)
        with open(inst.path(WORKLOAD), "w", encoding="utf-8") as file:
            file.write(work.to_json())
        inst.save()
        os.rename(inst.directory, final)
    except BaseException as error:
        # the signal that interrupts a rename comes after it
        filetree.remove_tree(inst.directory if os.path.lexists(inst.directory) else final)
        inst.release()
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise taken(work.name) from None
        raise
    inst.directory = final
    eventlog.note(inst, "create")
    if not held:
        inst.release()
    return inst


def _new_state(mode: str, options: Mapping[str, str], known: Mapping[str, Any]) -> State:
    identity, now_s, boot_id = os.urandom(4).hex(), time.time(), processes.boot_id()
    return State(id=identity, mode=mode, created=now_s, boot_id=boot_id, options=dict(options), **known)


def _make_locked(inst: Instance) -> int:
    """Make the directory of an instance and return the descriptor with its lock."""
    while True:
        os.mkdir(inst.directory, mode=0o700)
        with suppress(NotFoundError):  # another command took it for one of a killed command
            fd = inst.open_lock()
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.exists(inst.directory):
                return fd
            os.close(fd)


def taken(name: str) -> ConflictError:
    """Return the error for a name that another instance has."""
    hint = f"`vmctl rm -f {name}` removes that instance; with --name use another name"
    return ConflictError(f"the name {name} is taken by another instance", hint=hint)


def remove_unfinished() -> None:
    """Remove directories that killed commands were creating or removing; they are not instances.

    One that cannot be removed now is left: it must not keep other instances from their start or their end.
    """
    for folder in filter(_is_unfinished, _listing()):
        path = os.path.join(paths.instances_root(), folder)
        with suppress(OSError), locks.held_at_once(path):  # another command may have its lock, or have removed it
            filetree.remove_tree(path)


def _is_unfinished(folder: str) -> bool:
    return folder.startswith(".")


def load(name: str) -> Instance:
    """Return an existing instance.

    Raises NotFoundError, also for an invalid name, and UnreadableError if its files are damaged or of a later format.
    """
    if not is_name(name):
        raise absent(name)
    try:
        return _read(name, os.path.join(paths.instances_root(), name))
    except records.UnreadableError as error:
        if is_lost(os.path.join(paths.instances_root(), name)):
            raise LostError(f"{name} was lost when the host went down: its files are empty") from None
        error.hint = error.hint or removal_hint(name)
        raise


def _read(name: str, directory: str) -> Instance:
    try:
        state, timeline = _read_state(directory, name)
        what = f"{name}: {WORKLOAD}"
        work = Workload.from_json(records.content(os.path.join(directory, WORKLOAD), what), what)
    except FileNotFoundError as error:
        if os.path.isdir(directory):
            missing = os.path.basename(error.filename)
            raise records.UnreadableError(f"{name} is damaged: {missing} is missing") from None
        raise absent(name) from None
    return Instance(name, work, state, timeline)


def state_of(name: str) -> State:
    """Return the recorded state of an instance; its workload may be damaged. Raises NotFoundError, UnreadableError."""
    try:
        return _read_state(os.path.join(paths.instances_root(), name), name)[0]
    except FileNotFoundError:
        raise absent(name) from None
    except records.UnreadableError as error:
        error.hint = error.hint or removal_hint(name)
        raise


def _read_state(directory: str, name: str) -> tuple[State, Timeline]:
    """Return the state of the last line that can be read, with a warning if it is not the last of all.

    Raises FileNotFoundError, UnreadableError, the latter also for a line of a later version.
    """
    path, what = os.path.join(directory, STATE), f"{name}: {STATE}"
    if not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    found = records.lines(path, what, last_bytes=STATE_BYTES).objects
    damage = None
    for values in reversed(found):
        try:
            state, timeline = of_line(values, what)
        except records.LaterError:
            raise
        except records.UnreadableError as error:
            damage = damage or error
            continue
        if damage is not None:
            state.warnings = [*state.warnings, f"{damage}: this is the state before"]
        return state, timeline
    raise damage or records.UnreadableError(f"{what} is damaged: no line can be read")


def of_line(values: dict[str, Any], what: str) -> tuple[State, Timeline]:
    """Return state and timeline of one line of the record. Raises UnreadableError; `what` is named in it."""
    marks_ns = values.pop("marks_ns", {})
    if not isinstance(marks_ns, dict) or not all(map(_is_mark, marks_ns.values())):
        raise records.UnreadableError(f"{what} is damaged: expected marks in nanoseconds")
    return State.read(values, what), Timeline(marks_ns)


def _is_mark(at_ns: Any) -> bool:
    return type(at_ns) is int and at_ns >= 0


def names() -> list[str]:
    """Return the names of all instances, sorted. Folders that cannot be an instance are left out."""
    return sorted(filter(is_name, _listing()))


def _listing() -> list[str]:
    try:
        return os.listdir(paths.instances_root())
    except FileNotFoundError:
        return []
