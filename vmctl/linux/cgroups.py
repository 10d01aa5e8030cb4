"""One control group per instance: in the unified hierarchy (v2), or in one hierarchy per controller (v1, hybrid).

See cgroups(7), and Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ in the kernel's source.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from functools import cache

from vmctl import trace
from vmctl.errors import UnavailableError, VmctlError
from vmctl.light import signal
from vmctl.linux import delegation, kernelfile, usernamespace
from vmctl.named import NamedTuple

CONTROLLERS = ("memory", "cpu", "pids")
DEVICES = "devices"  # a controller of v1 only (devices.py)
CPU_PERIOD_US = 100_000

_NO_LIMIT = 1 << 60  # v1 has no word for it, only the largest number of whole pages
KMEM_V1 = "memory.kmem.usage_in_bytes"
# the parts that `kernel` in memory.stat adds up; before Linux 5.18 the file has only these parts (cgroup-v2.rst)
KERNEL_V2 = ("kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc", "slab")


_UNITS = (("G", 30), ("M", 20), ("K", 10))  # as units.exact_size has them


class Limits(NamedTuple):
    """The limits of a group; None means no limit."""

    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None

    def shown(self, controller: str) -> str:
        """Return the limit of a controller as it is asked for: `memory limit 64M`."""
        size = self.memory_bytes or 0
        unit, bits = next(((unit, bits) for unit, bits in _UNITS if size and size % (1 << bits) == 0), ("", 0))
        texts = {"memory": f"{size >> bits}{unit}", "cpu": f"{self.cpus or 0:g}", "pids": f"{self.pids}"}
        return f"{controller} limit {texts[controller]}"


class Hierarchy(NamedTuple):
    """The cgroup hierarchies of this host: the version that has the controllers, and the mount points."""

    version: int
    mounts: dict[str, str]  # mount point of each controller
    unified: str  # mount point of v2, "" if it is not mounted


@cache
def hierarchy() -> Hierarchy:
    """Return the host's cgroup hierarchies. Raises UnavailableError if no controller is mounted."""
    v1: dict[str, str] = {}
    v2 = ""
    for line in kernelfile.read("/proc/self/mounts").split("\n")[:-1]:
        _, target, fstype, options, *_ = line.split(" ")
        if fstype == "cgroup2":
            v2 = v2 or target
        elif fstype == "cgroup":
            found = {name: target for name in options.split(",") if name in (*CONTROLLERS, DEVICES)}
            v1 = {**found, **v1}  # the first mount counts: an ordinary user's process in mode host has copies
    if v2 and "memory" in _read(f"{v2}/cgroup.controllers").split():
        return Hierarchy(2, dict.fromkeys(CONTROLLERS, v2), v2)
    if not v1:
        raise UnavailableError("no cgroup controller is mounted", hint="mount cgroup2 on /sys/fs/cgroup")
    return Hierarchy(1, v1, v2)


class Cgroup:
    """The group of one instance: one folder in v2, one folder per hierarchy in v1.

    An ordinary user may have no group, or only some controllers: then what belongs to the others has no effect.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.layout = hierarchy()
        parents = delegation.parents(self.layout.version, self.layout.mounts)
        self.folders = {controller: f"{parent}/{name}" for controller, parent in sorted(parents.items())}

    def create(self, limits: Limits, owner: str = "") -> None:
        """Create the group, set its limits and read each back. Raises VmctlError if a limit is not in effect.

        `owner` is the folder of its owner, with which it is marked: groups of all state roots are next to each other.
        """
        self.check(limits)
        for folder in set(self.folders.values()):
            _make(folder, self.layout.version, [name for name, group in self.folders.items() if group == folder])
        self._mark(owner)
        self.set(limits)

    def set(self, limits: Limits) -> None:
        """Set the limits that are not None and read each back. Raises VmctlError if a limit is not in effect."""
        self.check(limits)
        for controller, file, value in self.settings(limits):
            path = os.path.join(self.folders[controller], file)
            try:
                kernelfile.write(path, value)
                found = _read(path).strip()
            except OSError as error:
                raise VmctlError(f"the {limits.shown(controller)} cannot be set: {error}") from error
            if not _is_in_effect(value, found):
                raise VmctlError(f"the {limits.shown(controller)} is not in effect: {path} contains {found}")

    def _mark(self, owner: str) -> None:
        for folder in set(self.folders.values()):
            with suppress(OSError):  # an old kernel: `doctor --fix` leaves such a group alone
                os.setxattr(folder, _mark_name(), os.fsencode(owner))

    def check(self, limits: Limits) -> None:
        """Raise UnavailableError for a limit that cannot be enforced, because we do not have its controller."""
        for controller, _, _ in self.settings(limits):
            if controller not in self.folders:
                raise UnavailableError(
                    f"the {limits.shown(controller)} cannot be enforced: this user has no control group for it",
                    hint=delegation.hint(self.layout.version),
                )

    def settings(self, limits: Limits) -> list[tuple[str, str, str]]:
        """Return (controller, file, value) for each limit that is set."""
        v2 = self.layout.version == 2
        settings = []
        if limits.memory_bytes is not None:
            settings.append(("memory", "memory.max" if v2 else "memory.limit_in_bytes", str(limits.memory_bytes)))
        if limits.pids is not None:
            settings.append(("pids", "pids.max", str(limits.pids)))
        if limits.cpus is not None:
            quota = max(1000, round(limits.cpus * CPU_PERIOD_US))  # the kernel's minimum quota is 1 ms
            if v2:
                settings.append(("cpu", "cpu.max", f"{quota} {CPU_PERIOD_US}"))
            else:
                settings.append(("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)))
                settings.append(("cpu", "cpu.cfs_quota_us", str(quota)))
        return settings

    def granted(self) -> Limits:
        """Return the limits that the kernel has for the group; None for no limit, and for a missing controller."""
        v2 = self.layout.version == 2
        quota, period = self._numbers("cpu", ("cpu.max",) if v2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        return Limits(
            cpus=quota / period if quota and period else None,
            memory_bytes=self._numbers("memory", ("memory.max" if v2 else "memory.limit_in_bytes",))[0],
            pids=self._numbers("pids", ("pids.max",))[0],
        )

    def _numbers(self, controller: str, files: tuple[str, ...]) -> list[int | None]:
        """Return the numbers in these files, and a None for each text such as "max" or -1, and for each missing one."""
        folder = self.folders.get(controller)
        words = " ".join(_read(f"{folder}/{file}") for file in files).split() if folder else []
        found = [int(word) if word.isdigit() and int(word) < _NO_LIMIT else None for word in words]
        return [*found, None, None][: max(2, len(found))]

    def has(self, pid: int) -> bool:
        """Return whether a process is in the group, in each hierarchy: /proc/PID/cgroup in cgroups(7)."""
        lines = [line.split(":", 2) for line in _read(f"/proc/{pid}/cgroup").splitlines()]
        places = {name: path for _, names, path in lines for name in names.split(",")}
        own = places.get("")  # v2
        return all((places.get(name, own) or "").endswith(f"/{self.name}") for name in self.folders)

    def open_for_clone(self) -> int | None:
        """Return a descriptor for CLONE_INTO_CGROUP, or None on v1, which has only `join`, and without a group."""
        if self.layout.version == 1 or not self.folders:
            return None
        folder = self.folders["memory"]
        if trace.on:
            trace.step(f"echo $$ > {folder}/cgroup.procs", "by clone3, for the new process")
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def join(self) -> None:
        """Move the calling thread into the group; it must be the only thread of its process."""
        # v1: writing 0 to `tasks` does not take the system-wide lock against process creation. Writing to
        # `cgroup.procs` does, and the first writer waits for an RCU grace period: 7 to 17 ms instead of 0.3 ms.
        file = "cgroup.procs" if self.layout.version == 2 else "tasks"
        for folder in set(self.folders.values()):
            kernelfile.write(f"{folder}/{file}", "0")

    def add(self, pid: int) -> None:
        """Move another process with all its threads into the group."""
        for folder in set(self.folders.values()):
            kernelfile.write(f"{folder}/cgroup.procs", str(pid))

    def memory_bytes(self) -> int | None:
        """Return the memory charged to the group in bytes, or None if the group does not exist."""
        file = "memory.current" if self.layout.version == 2 else "memory.usage_in_bytes"
        text = _read(os.path.join(self.folders["memory"], file)) if "memory" in self.folders else ""
        return int(text) if text else None

    def memory_split(self) -> dict[str, int]:
        """Return the charged memory in bytes by use: those of anon, file and kernel that the kernel reports."""
        folder = self.folders.get("memory", "")
        return split(self.layout.version, *(_read(os.path.join(folder, file)) for file in ("memory.stat", KMEM_V1)))

    def kept_bytes(self) -> int:
        """Return the memory in bytes that the kernel cannot take back without swap: anonymous, shared, its own."""
        stat = _read(os.path.join(self.folders.get("memory", ""), "memory.stat"))
        sizes = {name: int(size) for name, size in (line.split() for line in stat.splitlines())}
        names = ("anon", "shmem") if self.layout.version == 2 else ("total_rss", "total_shmem")
        return self.memory_split().get("kernel", 0) + sum(sizes.get(name, 0) for name in names)

    def oom_kills(self) -> int:
        """Return how many processes of the group the kernel's OOM killer has killed."""
        file = "memory.events" if self.layout.version == 2 else "memory.oom_control"
        for line in _read(os.path.join(self.folders.get("memory", ""), file)).splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return 0

    def pids(self) -> list[int]:
        """Return the pids of the processes in the group."""
        found = (_read(f"{folder}/cgroup.procs").split() for folder in set(self.folders.values()))
        return sorted({int(pid) for pids in found for pid in pids})

    def processor_s(self) -> float | None:
        """Return the processor time of the group so far in seconds, None if this host does not count it.

        v1 has a separate controller for it, which is often mounted together with `cpu`.
        """
        folder = self.folders.get("cpu", "")
        if self.layout.version == 2:
            for line in _read(f"{folder}/cpu.stat").splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e6
            return None
        text = _read(f"{folder}/cpuacct.usage") if folder else ""
        return int(text) / 1e9 if text else None

    def remove(self, timeout_s: float = 5.0) -> None:
        """Kill the processes in the group and remove it; does nothing if it does not exist. Raises VmctlError."""
        deadline = time.monotonic() + timeout_s
        while not all(_remove(folder) for folder in set(self.folders.values())):
            if time.monotonic() > deadline:
                raise VmctlError(f"the cgroup {self.name} cannot be removed: processes {self.pids()} are still in it")
            for pid in self.pids():
                with suppress(ProcessLookupError):  # it has exited since it was listed
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        for folder in set(self.folders.values()):
            with suppress(OSError):  # fails unless this was the parent's last group, and vmctl has made that
                os.rmdir(os.path.dirname(folder))


def marked() -> dict[str, str]:
    """Return the owner of each group of ours that is marked with one, by the name of the group."""
    found: dict[str, str] = {}
    layout = hierarchy()
    for parent in set(delegation.parents(layout.version, layout.mounts).values()):
        with suppress(FileNotFoundError):
            for name in os.listdir(parent):
                with suppress(OSError):  # a file, a group without a mark, or one that has just been removed
                    found[name] = os.fsdecode(os.getxattr(f"{parent}/{name}", _mark_name()))
    return found


def _mark_name() -> str:
    """Return the extended attribute for the mark: if possible one that only the host's root can set (xattr(7))."""
    return "trusted.vmctl" if usernamespace.is_host_root() else "user.vmctl"


def split(version: int, stat: str, kmem: str = "") -> dict[str, int]:
    """Return anon, file and kernel in bytes from the texts of memory.stat and, on v1, of KMEM_V1.

    A size that the kernel does not report is absent. v1 reports a group alone and, as total_..., together with the
    groups below it; v2 always reports them together (cgroup-v1/memory.rst).
    """
    sizes = {name: int(size) for name, size in (line.split() for line in stat.splitlines())}
    if version == 1:
        found = {"anon": sizes.get("total_rss", sizes.get("rss")), "file": sizes.get("total_cache", sizes.get("cache"))}
        return {**{part: size for part, size in found.items() if size is not None}, **_kernel_v1(kmem)}
    if "kernel" not in sizes and "slab" in sizes:
        sizes["kernel"] = sum(sizes.get(name, 0) for name in KERNEL_V2)
    return {part: sizes[part] for part in ("anon", "file", "kernel") if part in sizes}


def _kernel_v1(kmem: str) -> dict[str, int]:
    return {"kernel": int(kmem)} if kmem.strip() else {}


def _make(folder: str, version: int, controllers: list[str]) -> None:
    """Create a group below our parent group; on v2 enable the controllers for it first."""
    parent = os.path.dirname(folder)
    for _ in range(100):  # another command may remove the parent between two of these lines
        try:
            if not os.path.isdir(parent):
                os.makedirs(parent, exist_ok=True)
                os.chmod(parent, 0o755)  # else root of a user namespace could not mount the group below (cgroup2)
            if version == 2:
                wanted = " ".join(f"+{name}" for name in controllers)
                for group in (os.path.dirname(parent), parent):
                    if not set(controllers) <= set(_read(f"{group}/cgroup.subtree_control").split()):
                        kernelfile.write(f"{group}/cgroup.subtree_control", wanted)
            os.mkdir(folder)
            os.chmod(folder, 0o755)  # independent of the umask: a workload of any user may read its limits
            if trace.on:
                trace.step(f"mkdir -p {folder}")
            return
        except FileExistsError:
            return
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOSPC):
                raise
            raise VmctlError(
                f"no further control group can be made below {parent}: {error.strerror}",
                hint=f"see cgroup.max.descendants and cgroup.max.depth in {parent} and in the groups above it",
            ) from None
    raise VmctlError(f"the cgroup {folder} cannot be created")


def _remove(folder: str) -> bool:
    """Remove a group and the groups below it; return whether it is gone."""
    for path, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(path)
            if trace.on:
                trace.step(f"rmdir {path}")
        except FileNotFoundError:
            pass
        except OSError:
            return False
    return True


def _is_in_effect(wanted: str, found: str) -> bool:
    """Compare a limit with the value read back; the kernel rounds memory down to whole pages."""
    if wanted == found:
        return True
    return wanted.isdigit() and found.isdigit() and 0 <= int(wanted) - int(found) < os.sysconf("SC_PAGE_SIZE")


def _read(path: str) -> str:
    try:
        return kernelfile.read(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):  # ENODEV: the group was removed after the open(2)
            raise
        return ""
