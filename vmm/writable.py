"""The writable layer of a guest as a folder of the host: a copy of its disk, as a detached mount.

A running guest blocks all writing while its disk is copied (fsfreeze(8)). So the copy is a clean file system with all
data that programs have written; stopping QEMU instead would lose data that is still in the guest's memory. If this
command dies meanwhile, the guest continues after a minute. The copy is in a staging folder of the image store and the
mount is detached: neither outlives this process.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from images.store import store
from images.store.image import TMP, data_folders, provided
from images.store.staging import staging
from vmctl.ends import refuse_suspended
from vmctl.errors import DeadlineError, UnavailableError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import processes, usernamespace
from vmctl.linux.loops import detached, loop_device
from vmctl.programs import run
from vmctl.writable import Writable
from vmm import boot, control, files, marks, watch

FREEZE_TIMEOUT_S = 60.0
COPY_TIMEOUT_S = 600.0
MADE = ("/proc", "/sys", "/dev", "/run/vmctl")  # mount points that the guest's init creates

# Files of cloud-init and systemd in a guest that boots a system which belong to this instance, such as its keys.
_INSTANCE_FILES = (
    "var/lib/cloud",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "etc/hostname",
    "etc/machine-id",
    "etc/netplan/50-cloud-init.yaml",
    "etc/network/interfaces.d/50-cloud-init",
    "etc/systemd/network/10-cloud-init-eth0.network",
    *(f"etc/ssh/ssh_host_{kind}_key{end}" for kind in ("ed25519", "ecdsa", "rsa", "dsa") for end in ("", ".pub")),
)

_AUTHORIZED_KEYS = "root/.ssh/authorized_keys"  # cloud-init makes it, empty if root has no keys


@contextmanager
def writable(inst: Instance) -> Iterator[Writable]:
    """Yield a copy of the guest's writable layer as it is now. Raises UnavailableError, VmctlError."""
    if not usernamespace.is_host_root():
        raise UnavailableError(
            f"the disk of {inst.name} cannot be read: mounting it needs the host's root",
            hint=f"`vmctl exec {inst.name} -- tar -c PATH` copies files out of a running guest",
        )
    if inst.state.boot == boot.DISK:
        raise UnavailableError(f"{inst.name} runs from a disk image, which has no layers")
    refuse_suspended(inst)
    with ExitStack() as stack:
        copy = stack.enter_context(staging()).path("disk.img")
        with _frozen(inst):
            # the copy is sparse too, and shares blocks with the disk if the file system supports that
            run(["cp", "--sparse=always", "--reflink=auto", files.disk(inst), copy], timeout_s=COPY_TIMEOUT_S)
        try:
            # writable: the mount replays the journal of a guest that was killed
            device = stack.enter_context(loop_device(copy, writable=True))
            folder = _folder(stack.enter_context(detached(device, "ext4", read_only=False)), inst.name)
        except OSError as error:
            raise VmctlError(f"the copy of {inst.name}'s disk cannot be mounted: {error.strerror}") from error
        if inst.state.boot == boot.SYSTEM:
            _remove_instance_files(folder)
        work = inst.work
        given = (*data_folders(store.find(inst.image)), *(file.path for file in provided(work, "", None)))
        targets = (*(one.target for one in work.volumes), *(one.target for one in work.tmpfs))
        yield Writable(folder, (*MADE, TMP, *given, *targets))


def _folder(disk: str, name: str) -> str:
    """Return the folder of the writable layer: the guest may have put a link to a folder of the host in its place."""
    folder = os.path.join(disk, "upper")
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise VmctlError(f"the guest {name} has replaced its writable layer by something else")
    return folder


@contextmanager
def _frozen(inst: Instance) -> Iterator[None]:
    """Block all writing of a running guest. One command at a time can do it; a second one waits for the first."""
    fd = os.open(inst.path("copying"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not _runs(inst):
            yield
            return
        token = os.urandom(4).hex()
        try:
            _request(inst, f"freeze {token}")
            _wait_for(inst, f"frozen {token}")
            yield
        finally:
            _request(inst, "thaw")
        _wait_for(inst, f"thawed {token}")
    finally:
        os.close(fd)


def _wait_for(inst: Instance, mark: str) -> None:
    """Wait until the guest reports the mark, or has powered off: then its disk does not change any more."""
    token = mark.partition(" ")[2]
    deadline = time.monotonic() + FREEZE_TIMEOUT_S
    while mark not in (reported := marks.lines(inst)) and _runs(inst):
        if f"disturbed {token}" in reported:
            raise VmctlError(f"the guest {inst.name} wrote to its disk while the disk was copied", hint="try again")
        if time.monotonic() > deadline:
            raise DeadlineError(
                f"the guest {inst.name} did not freeze its disk within {FREEZE_TIMEOUT_S:g} s",
                hint="a guest can do that only after it has booted: try again",
                detail=watch.console_tail(inst),
            )
        time.sleep(0.005)


def _request(inst: Instance, line: str) -> None:
    with suppress(OSError):  # QEMU has just exited, or the FIFO is full because nothing reads it
        control.request(inst, line)


def _runs(inst: Instance) -> bool:
    return processes.alive(inst.state.pid, inst.state.pid_start)


def _remove_instance_files(folder: str) -> None:
    """Remove the files from a copy that belong to this instance and must not get into an image."""
    for path in _INSTANCE_FILES:
        with suppress(OSError), _parent(folder, path) as (parent, name):
            _remove(parent, name)
    with suppress(OSError), _parent(folder, _AUTHORIZED_KEYS) as (parent, name):
        if os.stat(name, dir_fd=parent, follow_symlinks=False).st_size == 0:
            os.unlink(name, dir_fd=parent)
    with suppress(OSError), _parent(folder, "etc/resolv.conf") as (parent, name):
        if os.readlink(name, dir_fd=parent) == "/run/vmctl/resolv.conf":  # of guest/system/start
            os.unlink(name, dir_fd=parent)


@contextmanager
def _parent(folder: str, path: str) -> Iterator[tuple[int, str]]:
    """Yield the folder that contains `path`; links are not followed, they would lead into the host. Raises OSError."""
    *above, name = path.split("/")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in above:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd, name
    finally:
        os.close(fd)


def _remove(parent: int, name: str) -> None:
    from shutil import rmtree

    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        rmtree(name, dir_fd=parent)
