"""A writable layer of limited size: upper and work folder are in an ext4 file system of that size, in a sparse file.

The file system is mounted on the host, through a loop device. A quota would need a mount option of the host's file
system that hardly any host has. Only root can mount it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from vmctl import limits, trace
from vmctl.backend import Problem
from vmctl.errors import VmctlError
from vmctl.instances.folder import Home
from vmctl.instances.instance import Instance
from vmctl.linux import syscalls, usernamespace
from vmctl.linux.filetree import replacing
from vmctl.linux.loops import loop_device
from vmctl.programs import run, which

LEAST_BYTES = 4 << 20
_FOLDERS = ("upper", "work")


def problem(size_bytes: int) -> Problem | None:
    """Return why a writable layer of this size cannot be made here, if so."""
    if not usernamespace.is_host_root():
        return Problem("resources.disk needs a loop device, which only root has", "leave the key out, or use --mode vm")
    if which("mke2fs") is None:
        return Problem("resources.disk needs mke2fs, which is not installed", "`vmctl doctor` shows how to install it")
    return limits.disk_problem(size_bytes, LEAST_BYTES)


def make(inst: Instance, size_bytes: int) -> None:
    """Make the file system, mount it, and make both folders in it; their usual places become links. Raises OSError.

    Repeatable: a file system that exists is only checked, because a crash of the host may have damaged it.
    """
    file, place = image(inst), _place(inst)
    if os.path.exists(file):
        _check(file)
    else:
        with replacing(file) as temporary:
            _make_file_system(temporary, size_bytes)
    os.makedirs(place, mode=0o700, exist_ok=True)
    inst.journal.record("mount", path=place)
    with loop_device(file, writable=True) as device:  # discard: blocks of deleted files are given back to the host
        syscalls.mount(device, place, "ext4", syscalls.MS_NOSUID | syscalls.MS_NODEV, "discard")
    for name in _FOLDERS:
        with suppress(FileExistsError):
            os.mkdir(os.path.join(place, name))
        with suppress(FileExistsError):
            os.symlink(os.path.join("disk", name), inst.path(name))


def _check(file: str) -> None:
    code, _, err = run(["e2fsck", "-p", file], check=False)
    if code > 1:  # 1: errors were corrected
        raise VmctlError(f"the file system in {file} is damaged: {err.strip()}", hint=f"e2fsck {file}")


def _make_file_system(file: str, size_bytes: int) -> None:
    with open(file, "wb") as empty:
        os.truncate(empty.fileno(), size_bytes)
    if trace.on:
        trace.step(f"truncate -s {size_bytes} {file}")
    run(command(file))


def command(file: str) -> list[str]:
    """Return the command that makes the file system; without a journal, because a crash ends the instance too."""
    return ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", file]


def size_bytes(home: Home) -> int | None:
    """Return the size of the mounted file system, None if the writable layer is a folder of the host."""
    return os.stat(image(home)).st_size if os.path.ismount(_place(home)) else None


def image(home: Home) -> str:
    """Return the path of the file."""
    return home.path("disk.img")


def _place(home: Home) -> str:
    return home.path("disk")
