"""What a QEMU may be and see: a user without rights, limits, and a file system with nothing but its own files.

QEMU emulates the devices of a hostile guest, so it counts as hostile too. libvirt changes its user, clears its
capabilities and starts it with a system call filter (`-sandbox`). All the rest is done here by the thread that calls
libvirt: QEMU inherits the namespaces, the limits and the no_new_privs flag of that thread.

QEMU stays in the host's PID namespace: libvirt reads its pid from a file that libvirt's child writes, and inside
another namespace that would be another number. Without capabilities it can signal and trace only processes of its own
user, which no other process has, and it sees no others, because its /proc hides them.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from vmctl.linux import syscalls, usernamespace
from vmctl.linux.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
)
from vmm import files, qemu

# of these folders only public parts of the distribution are in reach: no /etc, no /var, no /home, no other /usr
PROGRAM_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/libexec/qemu-kvm", "/etc/ld.so.cache")
HOST_FOLDERS = ("/sys/devices/system", "/sys/module")  # libvirt reads the processors, and what KVM supports
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
LIBVIRT_DEVICES = ("/dev/net/tun", "/dev/vhost-net")  # libvirt opens them and passes them on
KVM = "/dev/kvm"

THREADS = 192  # of QEMU, next to those of the virtual processors: its block layer alone has up to 64 per device


class Cell(NamedTuple):
    """The confinement of one QEMU."""

    uid: int | None  # the only process with it; also the group. None: that of the ordinary user who starts it
    root: str  # an empty folder: the mount point of QEMU's root
    read_only: tuple[str, ...]  # files and folders that it sees in their place
    writable: tuple[str, ...]
    for_libvirt: tuple[str, ...]  # files and folders that only libvirt needs, to start QEMU
    file_bytes: int  # no file can grow beyond that
    threads: int


def summary(uid: int | None) -> str:
    """Return in one line what QEMU is confined to, for people."""
    whose = "of the caller" if uid is None else str(uid)
    return (
        f"user and group {whose}, no capabilities, no_new_privs, its own mount, IPC, UTS and cgroup namespaces, "
        "no other files than its own"
    )


def hand_over(paths: Iterable[str], uid: int | None) -> None:
    """Make a user the owner of files. A link is not followed."""
    if uid is not None:
        for path in paths:
            os.chown(path, uid, uid, follow_symlinks=False)


def make_readable(paths: Iterable[str]) -> None:
    """Let any user read shared files, which stay root's. Who reaches them is decided by the folders above them.

    Each QEMU sees only its own of them (see `enter`), and the folders are closed for other users of the host.
    """
    for path in paths:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if not mode & stat.S_IROTH:
            os.chmod(path, mode | stat.S_IROTH | stat.S_IRGRP)


def enter(cell: Cell, *, without_network: bool) -> None:
    """Confine this thread, which stays root, and what it executes. Raises OSError if the kernel refuses.

    A thread that is not in a network of instances leaves that of the host too.
    """
    _limit(resource.RLIMIT_CORE, 0)  # the guest's memory
    _limit(resource.RLIMIT_FSIZE, cell.file_bytes)
    if usernamespace.is_host_root():  # counted per user, and not applied to root; libvirt sets that of a user's QEMU
        _limit(resource.RLIMIT_NPROC, cell.threads)
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWCGROUP
    syscalls.unshare(flags | (syscalls.CLONE_NEWNET if without_network else 0))
    syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)  # what is mounted here does not appear on the host
    syscalls.mount("tmpfs", cell.root, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=1m")
    for path in (*PROGRAM_FOLDERS, *qemu.FIRMWARE_FOLDERS, *HOST_FOLDERS, *cell.read_only):
        show(path, cell.root, syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NODEV)
    for path in (*cell.writable, *cell.for_libvirt):
        show(path, cell.root, syscalls.MOUNT_ATTR_NODEV)
    if not usernamespace.is_host_root():
        os.makedirs(f"{cell.root}/run", mode=0o755, exist_ok=True)
        os.symlink(os.readlink(files.ALIAS), f"{cell.root}{files.ALIAS}")
    _show_devices(cell)
    _show_processes(f"{cell.root}/proc")
    bounding_set = capabilities()  # read now: it is a file of the old root
    syscalls.mount(None, cell.root, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(cell.root)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", MNT_DETACH)
    for number in bounding_set:  # no program can gain a capability; this thread keeps those that it has
        syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def hide(cell: Cell) -> None:
    """Take away from QEMU, which runs now, what only libvirt needed to start it."""
    for path in (*cell.for_libvirt, *LIBVIRT_DEVICES, *(() if usernamespace.is_host_root() else ("/proc",))):
        with suppress(OSError):  # this host has no such device
            syscalls.umount2(path, MNT_DETACH)


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def show(path: str, root: str, attributes: int) -> None:
    """Show a file or folder in its place below the new root, if it exists; a link as the same link."""
    target = f"{root}{path}"
    if os.path.lexists(target):
        return  # below a folder that is shown already
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if stat.S_ISLNK(mode) and os.path.dirname(path) == "/":  # /lib of a merged /usr
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target, mode=0o755)
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    tree = syscalls.open_tree(path)
    try:
        syscalls.mount_setattr(tree, attributes | syscalls.MOUNT_ATTR_NOSUID)
        syscalls.move_mount(tree, target)
    finally:
        os.close(tree)


def _show_devices(cell: Cell) -> None:
    """Make a /dev with a few of the host's devices, and with its own node of KVM: the host's is not for this user."""
    target = f"{cell.root}/dev"
    os.mkdir(target, mode=0o755)
    syscalls.mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")
    for path in (*DEVICES, *LIBVIRT_DEVICES):
        show(path, cell.root, syscalls.MOUNT_ATTR_NOEXEC)
    if usernamespace.is_host_root():
        _make_kvm(cell)
    else:  # mknod(2) is refused
        show(KVM, cell.root, syscalls.MOUNT_ATTR_NOEXEC)
    syscalls.mount(None, target, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC)


def _make_kvm(cell: Cell) -> None:
    assert cell.uid is not None
    with suppress(FileNotFoundError):
        device = os.stat(KVM).st_rdev
        os.mknod(f"{cell.root}{KVM}", 0o600 | stat.S_IFCHR, device)
        os.chown(f"{cell.root}{KVM}", cell.uid, cell.uid)


def _show_processes(target: str) -> None:
    """Mount a /proc in which a user sees its own processes only (Linux 5.8); libvirt reads cpuinfo.

    An ordinary user cannot mount one: libvirt gets the host's, and QEMU none, see `hide`.
    """
    os.mkdir(target, mode=0o755)
    if not usernamespace.is_host_root():
        syscalls.mount("/proc", target, None, MS_BIND | MS_REC)
        return
    syscalls.mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=invisible")


def capabilities() -> range:
    """Return the numbers of all capabilities that this kernel has."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return range(int(file.read()) + 1)
