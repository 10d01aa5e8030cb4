"""The file system of a container as a list of small steps, each of which can be shown and taken.

The steps after the root are taken from inside it: an absolute link in an image leads into the image, never to the host.
The list is that of the OCI runtime specification (config-linux.md, "Default Filesystems", "Default Devices").
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from vmctl.linux.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_STRICTATIME,
    mount,
)
from vmctl.named import NamedTuple

_FLAG_NAMES = {
    MS_BIND: "bind",
    MS_REC: "rec",
    MS_REMOUNT: "remount",
    MS_RDONLY: "ro",
    MS_NOSUID: "nosuid",
    MS_NODEV: "nodev",
    MS_NOEXEC: "noexec",
    MS_RELATIME: "relatime",
    MS_STRICTATIME: "strictatime",
}
_PLAIN = MS_NOSUID | MS_NODEV | MS_NOEXEC

# What the kernel's own file systems would tell or let through although no namespace covers it.
MASKED = ("kcore", "keys", "latency_stats", "timer_list", "sched_debug", "acpi", "asound", "scsi", "interrupts")
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")


class Mount(NamedTuple):
    """mount(2) of a file system, onto a folder made for it where it is missing."""

    fstype: str
    target: str
    flags: int = 0
    data: str = ""
    source: str = ""

    def apply(self) -> None:
        """Take the step. Raises OSError."""
        try:
            os.mkdir(self.target)
        except FileExistsError:
            pass
        mount(self.source or self.fstype, self.target, self.fstype, self.flags, self.data)

    def __str__(self) -> str:
        if self.flags & MS_BIND:
            return f"mount --rbind {self.source} {self.target}"
        options = ",".join(filter(None, [*_names(self.flags), self.data]))
        return f"mount -t {self.fstype} -o {options or 'defaults'} {self.source or self.fstype} {self.target}"


class Hide(NamedTuple):
    """Cover a file with /dev/null or a folder with an empty read-only one, where it exists."""

    path: str

    def apply(self) -> None:
        """Take the step. Raises OSError."""
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
    """Make a path read-only by binding it onto itself, where it exists: a flag belongs to a mount, not to a folder."""

    path: str

    def apply(self) -> None:
        """Take the step. Raises OSError."""
        try:
            mount(self.path, self.path, None, MS_BIND | MS_REC)
        except FileNotFoundError:
            return
        mount(None, self.path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _PLAIN)

    def __str__(self) -> str:
        return f"mount --bind {self.path} {self.path} && mount -o remount,bind,ro {self.path}"


class Device(NamedTuple):
    """mknod(2) of a character device that everybody may use."""

    path: str
    major: int
    minor: int

    def apply(self) -> None:
        """Take the step. Raises OSError."""
        os.mknod(self.path, stat.S_IFCHR | 0o666, os.makedev(self.major, self.minor))

    def __str__(self) -> str:
        return f"mknod -m 666 {self.path} c {self.major} {self.minor}"


class HostDevice(NamedTuple):
    """Show a device of the host, whose root is the working directory meanwhile: a user namespace may not mknod(2)."""

    path: str

    def apply(self) -> None:
        """Take the step. Raises OSError."""
        os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        mount(self.path.lstrip("/"), self.path, None, MS_BIND)

    def __str__(self) -> str:
        return f"mount --bind {self.path} {self.path}, from the host's root"


class Link(NamedTuple):
    """symlink(2)."""

    path: str
    to: str

    def apply(self) -> None:
        """Take the step. Raises OSError."""
        os.symlink(self.to, self.path)

    def __str__(self) -> str:
        return f"ln -s {self.to} {self.path}"


# Whatever this kernel's defaults are: a writable layer in which a renamed folder leads back to its old name, or a file
# has only its attributes, could not become a layer of an image.
_WHOLE = "redirect_dir=off,metacopy=off"


class Overlay(NamedTuple):
    """One writable tree of an image's layers and an instance's own folder (overlayfs.rst).

    The layers are mount points in one folder, named from there: all that a mount is told has to fit in a page, and 127
    layers, as many as docker allows, would not with their whole paths.
    """

    layers: tuple[str, ...]  # names in `folder`, lowest first
    folder: str
    directory: str  # has `upper`, `work` and, to mount on, `rootfs`

    @property
    def target(self) -> str:
        """Where it is mounted."""
        return os.path.join(self.directory, "rootfs")

    @property
    def data(self) -> str:
        """The options, for a process that is in the folder of the layers; the topmost layer stands first."""
        upper, work = (_escaped(os.path.join(self.directory, name)) for name in ("upper", "work"))
        lower = ":".join(map(_escaped, reversed(self.layers)))
        return f"lowerdir={lower},upperdir={upper},workdir={work},{_WHOLE}"

    def apply(self) -> None:
        """Take the step. Raises OSError."""
        before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.chdir(self.folder)
            # nodev: an image's nodes are not those of /dev, and there is no other guard before the host's disks
            mount("overlay", self.target, "overlay", MS_NODEV, self.data)
        finally:
            os.fchdir(before)
            os.close(before)

    def __str__(self) -> str:
        return f"cd {self.folder} && mount -t overlay -o nodev,{self.data} overlay {self.target}"


Step = Mount | Hide | ReadOnly | Device | HostDevice | Link


def _escaped(path: str) -> str:
    """Return a path as overlayfs takes one, for which colon and comma mean something."""
    return "".join("\\" + letter if letter in "\\:," else letter for letter in path)


def root(layers: list[str], directory: str) -> Overlay:
    """Return the overlay of the instance whose directory is given, on mount points that share a folder."""
    folder = os.path.dirname(layers[0]) if layers else ""
    return Overlay(tuple(map(os.path.basename, layers)), folder, directory)


def again(path: str) -> Mount:
    """Return the bind of a mount onto itself: one that was inherited from the host is locked, its copy is not.

    See mount_namespaces(7), "Restrictions on mount namespaces".
    """
    return Mount("", path, MS_BIND | MS_REC, "", path)


def kernel_file_systems(*, own_users: bool = False) -> Iterator[Step]:
    """Yield what a process expects of /proc, /dev and /sys; `own_users`: it is in a user namespace."""
    yield Mount("proc", "/proc", _PLAIN)
    yield Mount("tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=64k")
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ):
        path = f"/dev/{name}"
        yield HostDevice(path) if own_users else Device(path, major, minor)
    for name, to in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        yield Link(f"/dev/{name}", f"/proc/self/fd{to}")
    yield Mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    yield Link("/dev/ptmx", "pts/ptmx")
    yield Mount("tmpfs", "/dev/shm", _PLAIN, "mode=1777,size=64m", "shm")
    yield Mount("mqueue", "/dev/mqueue", _PLAIN)
    yield Mount("sysfs", "/sys", _PLAIN | MS_RDONLY)


def cgroup_file_systems(version: int, controllers: list[str]) -> Iterator[Step]:
    """Yield the view of the container's own control group, read-only."""
    if version == 2:
        yield Mount("cgroup2", "/sys/fs/cgroup", _PLAIN | MS_RDONLY, "", "cgroup")
        return
    yield Mount("tmpfs", "/sys/fs/cgroup", _PLAIN, "mode=755,size=16k")
    for controller in controllers:
        yield Mount("cgroup", f"/sys/fs/cgroup/{controller}", _PLAIN | MS_RDONLY, controller)


def protections() -> Iterator[Step]:
    """Yield what keeps the parts of /proc and /sys that no namespace covers from being read or written."""
    for name in READ_ONLY:
        yield ReadOnly(f"/proc/{name}")
    for name in MASKED:
        yield Hide(f"/proc/{name}")
    yield Hide("/sys/firmware")
    yield Hide("/sys/devices/virtual/powercap")


def _names(flags: int) -> list[str]:
    return [name for flag, name in _FLAG_NAMES.items() if flags & flag]
