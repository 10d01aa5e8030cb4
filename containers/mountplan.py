"""The file system of a container as a list of small steps; each step can be printed and applied.

The steps after the root are applied from inside it: an absolute link in an image leads into the image, never to the
host. The list is that of the OCI runtime specification (config-linux.md, "Default Filesystems", "Default Devices").
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from vmctl import trace
from vmctl.linux import kernelfile, syscalls, usernamespace
from vmctl.linux.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_STRICTATIME,
    mount,
)
from vmctl.named import NamedTuple

TTY_GROUP = 5  # of terminals, in every distribution
_PLAIN = MS_NOSUID | MS_NODEV | MS_NOEXEC

# Parts of /proc that no namespace covers: hidden, or made read-only.
MASKED = ("kcore", "keys", "latency_stats", "timer_list", "sched_debug", "acpi", "asound", "scsi", "interrupts")
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")


class Mount(NamedTuple):
    """mount(2) of a file system onto a folder, which is created if it is missing."""

    fstype: str
    target: str
    flags: int = 0
    data: str = ""
    source: str = ""

    def apply(self) -> None:
        """Apply the step. Raises OSError."""
        try:
            os.mkdir(self.target)
            if trace.on:
                trace.step(f"mkdir {self.target}")
        except FileExistsError:
            pass
        mount(self.source or self.fstype, self.target, self.fstype, self.flags, self.data)

    def __str__(self) -> str:
        from vmctl.linux import commands

        return commands.mount(self.source or self.fstype, self.target, self.fstype, self.flags, self.data)


class Hide(NamedTuple):
    """Cover a file with /dev/null, or a folder with an empty read-only folder; does nothing if it does not exist."""

    path: str

    def apply(self) -> None:
        """Apply the step. Raises OSError."""
        try:
            if stat.S_ISDIR(os.stat(self.path).st_mode):
                mount("tmpfs", self.path, "tmpfs", MS_RDONLY | _PLAIN, "size=0")
            else:
                mount("/dev/null", self.path, None, MS_BIND)
        except FileNotFoundError:
            pass

    def __str__(self) -> str:
        return f"mount --bind /dev/null {self.path}"


class ReadOnly(NamedTuple):
    """Make a path read-only, if it exists, by a bind mount: a flag belongs to a mount, not to a folder."""

    path: str

    def apply(self) -> None:
        """Apply the step. Raises OSError."""
        try:
            mount(self.path, self.path, None, MS_BIND | MS_REC)
        except FileNotFoundError:
            return
        mount(None, self.path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _PLAIN)

    def __str__(self) -> str:
        return f"mount --bind {self.path} {self.path} && mount -o remount,bind,ro {self.path}"


class Device(NamedTuple):
    """mknod(2) of a character device that all users may use."""

    path: str
    major: int
    minor: int

    def apply(self) -> None:
        """Apply the step. Raises OSError."""
        os.mknod(self.path, stat.S_IFCHR | 0o666, os.makedev(self.major, self.minor))
        if trace.on:
            trace.step(str(self))

    def __str__(self) -> str:
        return f"mknod -m 666 {self.path} c {self.major} {self.minor}"


class HostDevice(NamedTuple):
    """Bind a device of the host, whose root is the working directory now.

    mknod(2) fails in a user namespace, and on a mount that allows devices a workload could make its own.
    """

    path: str

    def apply(self) -> None:
        """Apply the step. Raises OSError."""
        os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        if trace.on:
            trace.step(f"touch {self.path}")
        mount(self.path.lstrip("/"), self.path, None, MS_BIND)
        # read-only, or root inside could change the mode of the host's device; devices can be written to all the same
        mount(None, self.path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC)

    def __str__(self) -> str:
        return f"mount --bind -o ro,nosuid,noexec {self.path} {self.path}, from the host's root"


class HostTree(NamedTuple):
    """Bind a file system of the host, whose root is the working directory, with all that is mounted in it."""

    path: str
    read_only: bool = False

    def apply(self) -> None:
        """Apply the step; does nothing if the host does not have it. Raises OSError."""
        source = self.path.lstrip("/")
        if not os.path.isdir(source):
            return
        os.makedirs(self.path, exist_ok=True)
        tree = syscalls.open_tree(source)
        try:
            if self.read_only:
                attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
                syscalls.mount_setattr(tree, attributes | syscalls.MOUNT_ATTR_RDONLY)
            syscalls.move_mount(tree, self.path)
        finally:
            os.close(tree)

    def __str__(self) -> str:
        option = "-o ro,nosuid,nodev,noexec " if self.read_only else ""
        return f"mount --rbind {option}{self.path} {self.path}, from the host's root"


class Setting(NamedTuple):
    """Write a value to a file below /proc/sys that belongs to one of the container's namespaces."""

    path: str
    value: str

    def apply(self) -> None:
        """Apply the step. Raises OSError."""
        kernelfile.write(self.path, self.value)

    def __str__(self) -> str:
        return f"echo '{self.value}' > {self.path}"


class Link(NamedTuple):
    """symlink(2)."""

    path: str
    to: str

    def apply(self) -> None:
        """Apply the step. Raises OSError."""
        os.symlink(self.to, self.path)
        if trace.on:
            trace.step(str(self))

    def __str__(self) -> str:
        return f"ln -s {self.to} {self.path}"


# Independent of the kernel's defaults: a writable layer in which a renamed folder refers to its old name, or a file has
# only its attributes, could not become a layer of an image.
_SELF_CONTAINED = (("redirect_dir", "off"), ("metacopy", "off"))
_OF_USERS = (("userxattr", None),)  # in a user namespace; it includes the two above, and cannot be given with them


class Overlay(NamedTuple):
    """A writable tree of an image's layers and the instance's upper folder (overlayfs.rst).

    The layers are mount points in one folder and named relative to it: the options of a mount must fit into a page, and
    127 layers, the maximum of docker, would not fit with their absolute paths.
    """

    layers: tuple[str, ...]  # names in `folder`, lowest first
    folder: str
    directory: str  # contains `upper`, `work` and the mount point `rootfs`

    @property
    def target(self) -> str:
        """The mount point."""
        return os.path.join(self.directory, "rootfs")

    @property
    def data(self) -> str:
        """The mount options, relative to the folder of the layers; the topmost layer comes first."""
        upper, work = (_escaped(os.path.join(self.directory, name)) for name in ("upper", "work"))
        lower = ":".join(map(_escaped, reversed(self.layers)))
        marks = ",".join(key if value is None else f"{key}={value}" for key, value in _marks())
        return f"lowerdir={lower},upperdir={upper},workdir={work},{marks}"

    def apply(self) -> None:
        """Apply the step. Raises OSError."""
        before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.chdir(self.folder)
            if trace.on:
                trace.step(f"cd {self.folder}")
            if len(os.fsencode(self.data)) >= os.sysconf("SC_PAGE_SIZE"):
                self._mount_long()
            else:  # nodev: nothing else keeps device nodes of an image from giving access to the host's disks
                mount("overlay", self.target, "overlay", MS_NOSUID | MS_NODEV, self.data)
        finally:
            os.fchdir(before)
            os.close(before)

    def _mount_long(self) -> None:
        """Mount it by one parameter for each layer: all options together would not fit into a page."""
        layers = [os.open(name, os.O_PATH | os.O_CLOEXEC) for name in self.layers]
        try:
            tree = self.detached(layers)
            try:
                syscalls.move_mount(tree, self.target)
            finally:
                os.close(tree)
        finally:
            for fd in layers:
                os.close(fd)

    def detached(self, layers: list[int]) -> int:
        """Return it as a mount that is attached nowhere, of these descriptors of its layers. Raises OSError.

        The kernel reads each folder by its descriptor, so that no path of the host appears in mountinfo.
        """
        above = [os.open(os.path.join(self.directory, name), os.O_PATH | os.O_CLOEXEC) for name in ("upper", "work")]
        try:
            lower = (("lowerdir+", f"/proc/self/fd/{fd}") for fd in reversed(layers))
            upper = ((key, f"/proc/self/fd/{fd}") for key, fd in zip(("upperdir", "workdir"), above, strict=True))
            parameters = (("source", "overlay"), *lower, *upper, *_marks())
            return syscalls.new_mount("overlay", parameters, syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV)
        finally:
            for fd in above:
                os.close(fd)

    def __str__(self) -> str:
        return f"cd {self.folder} && mount -t overlay -o nosuid,nodev,{self.data} overlay {self.target}"


def _marks() -> tuple[tuple[str, str | None], ...]:
    return _SELF_CONTAINED if usernamespace.is_host_root() else _OF_USERS


Step = Mount | Hide | ReadOnly | Device | HostDevice | HostTree | Setting | Link


def _escaped(path: str) -> str:
    """Return a path for the options of overlayfs, in which colon and comma are special."""
    return "".join("\\" + letter if letter in "\\:," else letter for letter in path)


def root(layers: list[str], directory: str) -> Overlay:
    """Return the overlay of the instance with this directory; `layers` are mount points in one folder."""
    folder = os.path.dirname(layers[0]) if layers else ""
    return Overlay(tuple(map(os.path.basename, layers)), folder, directory)


def kernel_file_systems(
    *, own_mounts: bool = True, sysfs: bool = True, shared: bool = False, shm_bytes: int | None = None
) -> Iterator[Step]:
    """Yield the steps for /proc, /dev and /sys.

    With its own mounts, a container gets each device as a mount from the host: nodes that it makes itself open nothing.
    `sysfs` is False if only the host may mount a sysfs, because it shows the devices of the host's network. `shared`:
    the process stays in namespaces that its user namespace does not own, so it cannot mount their file systems, and
    sees those of the host.
    """
    yield HostTree("/proc") if shared else Mount("proc", "/proc", _PLAIN)
    nodev = MS_NODEV if own_mounts else 0
    yield Mount("tmpfs", "/dev", MS_NOSUID | nodev | MS_STRICTATIME, "mode=755,size=64k")
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ):
        path = f"/dev/{name}"
        yield HostDevice(path) if own_mounts else Device(path, major, minor)
    for name, to in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        yield Link(f"/dev/{name}", f"/proc/self/fd{to}")
    group = ",gid=5" if usernamespace.ids() > TTY_GROUP else ""  # an id that is not mapped is refused
    yield Mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{group}")
    yield Link("/dev/ptmx", "pts/ptmx")
    yield Mount("tmpfs", "/dev/shm", _PLAIN, f"mode=1777,size={shm_bytes or '64m'}", "shm")
    yield HostTree("/dev/mqueue") if shared else Mount("mqueue", "/dev/mqueue", _PLAIN)
    yield Mount("sysfs", "/sys", _PLAIN | MS_RDONLY) if sysfs else HostTree("/sys", read_only=own_mounts)


def cgroup_file_systems(version: int, controllers: list[str]) -> Iterator[Step]:
    """Yield the steps that show the container's control group, read-only."""
    if version == 2:
        yield Mount("cgroup2", "/sys/fs/cgroup", _PLAIN | MS_RDONLY, "", "cgroup")
        return
    yield Mount("tmpfs", "/sys/fs/cgroup", _PLAIN, "mode=755,size=16k")
    for controller in controllers:
        yield Mount("cgroup", f"/sys/fs/cgroup/{controller}", _PLAIN | MS_RDONLY, controller)


def network_settings() -> Iterator[Step]:
    """Yield the steps that change what a network namespace has at first, or inherits from the host.

    All groups may use ping without the right to make any packet (icmp(7)), and nothing is forwarded.
    """
    yield Setting("/proc/sys/net/ipv4/ip_forward", "0")
    yield Setting("/proc/sys/net/ipv4/ping_group_range", f"0 {min(usernamespace.ids(), 65536) - 1}")


def protections() -> Iterator[Step]:
    """Yield the steps that hide, or make read-only, the parts of /proc and /sys that no namespace covers."""
    for name in READ_ONLY:
        yield ReadOnly(f"/proc/{name}")
    for name in MASKED:
        yield Hide(f"/proc/{name}")
    yield Hide("/sys/firmware")
    yield Hide("/sys/devices/virtual/powercap")
