"""The folder of one instance: the names of its files, its lock and its removal, independent of its content."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vmctl import paths, records
from vmctl.errors import ConflictError, NoSuchInstance, VmctlError
from vmctl.linux import filetree

LOCK_S = 30.0
_LAST = ("state.jsonl", "workload.json")  # the files from which an instance is read


class Home:
    """The folder, the run folder and the cgroup of an instance, computed from its name and id."""

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self.id = identity  # 8 hex digits, for names whose length the kernel limits
        self.directory = os.path.join(paths.instances_root(), name)

    # All files of an instance. Some exist only in one mode.
    def path(self, *parts: str) -> str:
        """Return a path inside the instance directory."""
        return os.path.join(self.directory, *parts)

    @property
    def cgroup(self) -> str:
        """The name of the cgroup; it differs from that of an instance of the same name below another VMCTL_ROOT."""
        return f"{self.name}.{self.id}"

    @property
    def run_dir(self) -> str:
        """The folder for sockets and mount points; it is short, because a socket's path has 107 bytes (unix(7))."""
        return os.path.join(paths.run_root(), self.id)

    @property
    def stdout_log(self) -> str:
        """The workload's standard output."""
        return self.path("stdout.log")

    @property
    def stderr_log(self) -> str:
        """The workload's standard error."""
        return self.path("stderr.log")

    def is_paused(self) -> bool:
        """Return whether `vmctl pause` has paused it: the file with the lock of pausing is then not empty."""
        return filetree.size_bytes(self.path("paused")) > 0

    @property
    def suspended(self) -> str:
        """The folder with what `vmctl suspend` has saved; it exists only of an instance that is suspended."""
        return self.path("suspended")

    @property
    def console_log(self) -> str:
        """The output of a guest's kernel and init on the serial console."""
        return self.path("console.log")


class Folder(Home):
    """An instance as a folder: it can be locked and removed, even if what it contains cannot be read.

    The folder itself is the lock (flock(2): it ends with its holder). A lock file would have to be created, which a
    full disk prevents, and a lock of the folder can be held before the folder has its name.
    """

    held: int | None = None  # a descriptor with the lock that `locked` takes over
    left = False  # the command that has started it has detached from it, and it runs on

    @contextmanager
    def locked(self, timeout_s: float = LOCK_S) -> Iterator[None]:
        """Hold the instance's lock.

        Raises ConflictError after `timeout_s`, NotFoundError if the instance has been removed meanwhile.
        """
        fd, self.held = self.held if self.held is not None else self.open_lock(), None
        try:
            take_lock(fd, self.name, timeout_s)
            self._refuse_removed(fd)
            yield
        finally:
            os.close(fd)

    def busy(self) -> bool:
        """Return whether a command holds the lock now. Raises NotFoundError."""
        fd = self.open_lock()
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def release(self) -> None:
        """Give back a lock that was held for `locked`; repeatable."""
        if self.held is not None:
            os.close(self.held)
            self.held = None

    def open_lock(self) -> int:
        """Return a descriptor of the folder, for flock(2). Raises NotFoundError."""
        try:
            return os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise absent(self.name) from None

    def remove_files(self) -> None:
        """Remove directory and run folder, after the journal was undone; the directory is first renamed.

        On a full disk it may have to keep its name until it is empty. Then the files from which the instance is read
        go last, so that this can be repeated.

        Raises VmctlError if something is still mounted in them, such as a volume: its files would be deleted too.
        """
        from vmctl.linux import mountinfo  # it imports ctypes

        folders = [self.directory, *([self.run_dir] if self.id else [])]
        if mounts := mountinfo.below(*folders):
            raise VmctlError(
                f"{self.name} cannot be removed: {mounts[-1]} is still mounted", hint=f"umount {mounts[-1]}"
            )
        for folder in folders[1:]:
            filetree.remove_tree(folder)
        unfinished = self.unfinished()
        try:
            os.rename(self.directory, unfinished)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            filetree.remove_tree(self.directory, last=_LAST)
        else:
            filetree.remove_tree(unfinished)

    def unfinished(self) -> str:
        """Return the path of the directory while this process creates or removes it."""
        return os.path.join(paths.instances_root(), f".{self.name}.{os.getpid()}")

    def _refuse_removed(self, lock: int) -> None:
        """Raise NotFoundError if the lock belongs to a removed instance, even if a new one has the same name."""
        try:
            if os.path.samestat(os.fstat(lock), os.stat(self.directory)):
                return
        except FileNotFoundError:
            pass
        raise absent(self.name)


def absent(name: str) -> NoSuchInstance:
    """Return the error for a name that no instance has."""
    return NoSuchInstance(f"there is no instance {name}", hint="`vmctl ps -a` lists them")


def is_lost(directory: str) -> bool:
    """Return whether a record is blank since before the host was started: nothing of it can run any more.

    The names of new files can be on the disk before their content, and an instance is not synced, see durable.py.
    """
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for path in (os.path.join(directory, name) for name in _LAST):
        with suppress(OSError, records.UnreadableError):
            if os.lstat(path).st_mtime < booted_s and not records.content(path, path).strip(b"\0"):
                return True
    return False


def removal_hint(name: str) -> str:
    """Return the hint for an instance that cannot be read."""
    return f"`vmctl rm -f {name}` removes what its journal lists"


def take_lock(fd: int, name: str, timeout_s: float) -> None:
    """Lock an open folder (flock(2)). Raises ConflictError after `timeout_s`; `name` is what the folder belongs to."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"{name} is in use by {_holder(fd)}", hint="try again when that process has finished"
                ) from None
            time.sleep(0.01)


def _holder(fd: int) -> str:
    """Return the process that holds the flock(2) of a file, as proc_locks(5) lists it."""
    inode = f":{os.fstat(fd).st_ino}"
    with suppress(OSError), open("/proc/locks", encoding="ascii") as file:
        for fields in map(str.split, file):
            if fields[1] == "FLOCK" and fields[5].endswith(inode):
                return f"process {fields[4]}"
    return "another process"
