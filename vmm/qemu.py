"""QEMU as a process of this host: found and ended without libvirt, whose driver may not run any more."""

from __future__ import annotations

import fcntl
import os
import re
import struct

from vmctl.errors import VmctlError
from vmctl.linux import processes
from vmctl.programs import run, which

FIRMWARE_FOLDERS = ("/usr/share/qemu", "/usr/share/qemu-kvm", "/usr/share/seabios", "/usr/share/seavgabios")
_FLOCK = "hhqqi4x"  # struct flock: l_type, l_whence, l_start, l_len, l_pid


def emulator() -> str | None:
    """Return the path of QEMU for this machine's architecture, or None if it is not installed."""
    return which("qemu-system-x86_64") or which("/usr/libexec/qemu-kvm")


def files(emulator: str) -> list[str]:
    """Return the program, its libraries, and the folders of its modules and its firmware. Raises CommandError."""
    libraries = re.findall(r"(/\S+) \(0x", run(["ldd", emulator])[1])
    modules = sorted({os.path.join(os.path.dirname(library), "qemu") for library in libraries})
    firmware = run([emulator, "-L", "help"])[1].split()
    return [emulator, *libraries, *modules, *firmware]


def quick_firmware() -> str:
    """Return the path of qboot, which does only what a directly booted kernel needs; "" if QEMU is here without it.

    It cannot boot a disk.
    """
    names = (os.path.join(folder, "qboot.rom") for folder in FIRMWARE_FOLDERS)
    return next(filter(os.path.exists, names), "")


def find(uuid: str) -> int | None:
    """Return the pid of the QEMU that runs the domain `uuid`, or None; libvirt passes the UUID as an argument."""
    argument = b"\0-uuid\0" + uuid.encode() + b"\0"
    for name in os.listdir("/proc"):
        if name.isdigit() and argument in _command_line(name):
            return int(name)
    return None


def lock_holder(pid_file: str) -> int | None:
    """Return the pid of the process that has locked libvirt's pid file, or None.

    libvirt's child locks the file before it executes QEMU, and QEMU keeps the lock until it exits (fcntl(2)). So this
    also finds the child before it executes QEMU, and never another process that was given the same pid later.
    """
    try:
        fd = os.open(pid_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, question))
    finally:
        os.close(fd)
    return pid if kind != fcntl.F_UNLCK and pid > 0 else None


def end(pid_file: str, uuid: str) -> None:
    """Kill the QEMU of a domain, if it runs, and wait until it is gone. Raises VmctlError if it is still running."""
    for pid in {lock_holder(pid_file), find(uuid)} - {None}:
        assert pid is not None
        if not processes.end(pid, processes.start_time(pid)):
            raise VmctlError(f"QEMU (process {pid}) is still running after SIGKILL", hint="`dmesg` may show why")


def _command_line(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:  # it has just exited
        return b""
