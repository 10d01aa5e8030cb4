"""One directory per instance: every file name in it, its state, its lock and its journal."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import paths
from vmctl.errors import ConflictError, NotFoundError, SpecError, VmctlError
from vmctl.home import Home
from vmctl.journal import Journal, append_line, read_lines
from vmctl.linux import filetree
from vmctl.named import TYPE_CHECKING
from vmctl.timeline import Timeline
from vmctl.workload import Workload

if TYPE_CHECKING:
    from typing import Any

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"

STATE = "state.jsonl"  # a line per change, the last one counts


class State:
    """What was intended and last seen; the kernel and libvirt are asked for the truth."""

    def __init__(self, **values: Any) -> None:
        self.id: str = values.get("id", "")  # 8 hex digits, for names that the kernel keeps short
        self.mode: str = values.get("mode", "")
        self.status: str = values.get("status", "created")  # created | running | exited | failed
        self.created: float = values.get("created", 0.0)  # seconds since the epoch
        self.pid: int | None = values.get("pid")  # of the workload (container) or of QEMU (vm), on the host
        self.pid_start: int | None = values.get("pid_start")  # its start time in ticks: pids are used again
        self.supervisor_pid: int | None = values.get("supervisor_pid", values.get("keeper_pid"))
        self.supervisor_start: int | None = values.get("supervisor_start")
        self.image_digest: str | None = values.get("image_digest")
        self.address: str | None = values.get("address")
        self.mac: str | None = values.get("mac")
        self.accelerator: str | None = values.get("accelerator")
        self.boot: str | None = values.get("boot")  # how a guest comes up: direct | system | disk
        self.stop_s: float = values.get("stop_s", 10.0)  # how long `stop` waits before it kills, unless told
        self.exit_code: int | None = values.get("exit_code")
        self.exit_source: str | None = values.get("exit_source")
        self.warnings: list[str] = values.get("warnings", [])  # what the user should know of the last start
        self.own: dict[str, Any] = values.get("own", values.get("extra", {}))  # the backend's own values


class Instance(Home):
    """A named instance and its directory."""

    def __init__(self, name: str, work: Workload, state: State) -> None:
        super().__init__(name, state.id)
        self.work = work
        self.state = state
        self.journal = Journal(self.path("journal"))
        self.timeline = Timeline()

    def save(self) -> None:
        """Write state and timeline, whole or not at all. Raises NotFoundError where the instance has been removed."""
        try:
            append_line(self.path(STATE), {**vars(self.state), "marks_ns": self.timeline.marks_ns})
        except FileNotFoundError:
            raise _absent(self.name) from None

    def recall(self) -> None:
        """Read state and timeline again: another command may have written them. Raises NotFoundError."""
        try:
            self.state, self.timeline = _read_state(self.directory)
        except FileNotFoundError:
            raise _absent(self.name) from None

    def remove_files(self) -> None:
        """Remove the directory; the journal has been undone before. It is gone at once, then file by file.

        Raises VmctlError where something is mounted in it still: what is removed there would be somebody else's.
        """
        from vmctl.linux import mountinfo  # ctypes comes along

        if mounts := mountinfo.below(self.directory):
            raise VmctlError(
                f"{self.name} cannot be removed: {mounts[-1]} is still mounted", hint=f"umount {mounts[-1]}"
            )
        filetree.remove_tree(self.run_dir)
        doomed = _unfinished(self.name)
        os.rename(self.directory, doomed)
        filetree.remove_tree(doomed)

    @contextmanager
    def locked(self, timeout_s: float = 30.0) -> Iterator[None]:
        """Hold the instance's lock (flock(2): it ends with its holder); the state is read again when it is had.

        Raises ConflictError after `timeout_s`, NotFoundError where the instance has been removed meanwhile.
        """
        fd = self._open_lock()
        try:
            _flock(fd, self.name, timeout_s)
            self._refuse_removed(fd)
            self.recall()
            os.truncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(fd)

    def busy(self) -> bool:
        """Return whether a command holds the lock now. Raises NotFoundError."""
        fd = self._open_lock()
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _open_lock(self) -> int:
        try:
            return os.open(self.path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise _absent(self.name) from None

    def _refuse_removed(self, lock: int) -> None:
        """Raise NotFoundError where the lock is that of an instance gone; one of the same name is another one."""
        try:
            if os.path.samestat(os.fstat(lock), os.stat(self.path("lock"))):
                return
        except FileNotFoundError:
            pass
        raise _absent(self.name)


def write_atomic(path: str, content: str | bytes) -> None:
    """Replace a file's content so that a reader, or a crash, sees the old or the new one, never a part."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError:  # a full filetree, a folder in the place of the file
        with suppress(OSError):
            os.unlink(temporary)
        raise


def check_name(name: str) -> None:
    """Raise SpecError unless `name` can be an instance's: it becomes a folder, a cgroup, a host name."""
    if not re.fullmatch(NAME, name):
        raise SpecError(
            f"the name {name!r} cannot be used",
            hint="up to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
        )


def create(work: Workload, mode: str) -> Instance:
    """Make the directory of a new instance. Raises ConflictError where the name is taken."""
    check_name(work.name)
    inst = Instance(work.name, work, State(id=os.urandom(4).hex(), mode=mode, created=time.time()))
    os.makedirs(paths.instances_root(), mode=0o711, exist_ok=True)
    remove_unfinished()
    # The directory appears with its content or not at all: a half-made one would have no mode to remove it by.
    temporary = _unfinished(work.name)
    final, inst.directory = inst.directory, temporary
    os.mkdir(temporary, mode=0o711)
    try:
        with open(inst.path("workload.json"), "w", encoding="utf-8") as file:
            file.write(work.to_json())
        inst.save()
        os.close(inst._open_lock())  # now: on a full disk it could not be made later, to remove the rest
        os.rename(temporary, final)
    except BaseException as error:
        filetree.remove_tree(temporary)
        if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise taken(work.name) from None
        raise
    inst.directory = final
    return inst


def taken(name: str) -> ConflictError:
    """Return the error for a name that another instance has."""
    hint = f"`vmctl rm -f {name}` frees it; `--name` gives another one"
    return ConflictError(f"the name {name} is taken by another instance", hint=hint)


def remove_unfinished() -> None:
    """Remove the directories of commands that were killed while they made or removed one; they stand for nothing."""
    for folder in filter(_is_unfinished, _listing()):
        if not os.path.exists(f"/proc/{folder.rpartition('.')[2]}"):
            with suppress(FileNotFoundError):  # another command is at it, too
                filetree.remove_tree(os.path.join(paths.instances_root(), folder))


def _unfinished(name: str) -> str:
    """Return what a directory is called while this process makes or removes it."""
    return os.path.join(paths.instances_root(), f".{name}.{os.getpid()}")


def _is_unfinished(folder: str) -> bool:
    return folder.startswith(".")


def load(name: str) -> Instance:
    """Return an existing instance. Raises NotFoundError, also for a name that could not be one."""
    directory = os.path.join(paths.instances_root(), name)
    try:
        if not re.fullmatch(NAME, name):
            raise FileNotFoundError
        state, timeline = _read_state(directory)
        with open(os.path.join(directory, "workload.json"), encoding="utf-8") as file:
            work = Workload.from_json(file.read())
    except (FileNotFoundError, NotADirectoryError):
        raise _absent(name) from None
    inst = Instance(name, work, state)
    inst.timeline = timeline
    return inst


def _read_state(directory: str) -> tuple[State, Timeline]:
    lines = read_lines(os.path.join(directory, STATE))
    if not lines:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
    values = lines[-1]
    marks_ns = values.pop("marks_ns", {})
    return State(**values), Timeline(marks_ns)


def _absent(name: str) -> NotFoundError:
    return NotFoundError(f"there is no instance {name}", hint="`vmctl ps -a` lists them")


def names() -> list[str]:
    """Return the names of all instances, sorted."""
    return sorted(folder for folder in _listing() if not _is_unfinished(folder))


def _listing() -> list[str]:
    try:
        return os.listdir(paths.instances_root())
    except FileNotFoundError:
        return []


def _flock(fd: int, name: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(fd, 20, 0).decode() or "another command"
                raise ConflictError(f"{name} is in use by process {holder}", hint="try again when it is done") from None
            time.sleep(0.01)
