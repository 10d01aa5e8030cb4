"""The writable layer of a guest as a folder of the host: a copy of its disk, mounted where nobody else sees it.

A running guest holds back all writing while its disk is copied (fsfreeze(8), so the copy is a clean file system with
all that programs have written; holding QEMU instead would lose what is still in the guest's memory). It goes on by
itself after a minute, should this command die meanwhile. The copy is in a stage of the image store, the mount is
attached nowhere: neither outlives its user.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from images.store.staging import staging
from vmctl.backend import Writable
from vmctl.errors import DeadlineError, UnavailableError, VmctlError
from vmctl.instance import Instance
from vmctl.linux import processes
from vmctl.linux.loops import detached, loop_device
from vmctl.run import run
from vmm import boot, control, files, keys, watch

FREEZE_TIMEOUT_S = 60.0
COPY_TIMEOUT_S = 600.0
MADE = ("/proc", "/sys", "/dev", "/run/vmctl")  # what the guest's init makes to mount on

# Of a system: what cloud-init and systemd keep of this one instance, its keys among them.
_OF_THE_INSTANCE = (
    "var/lib/cloud",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "etc/hostname",
    "etc/machine-id",
    "etc/netplan/50-cloud-init.yaml",
    "etc/network/interfaces.d/50-cloud-init",
    "etc/systemd/network/10-cloud-init-eth0.network",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
)
_AUTHORIZED_KEYS = "root/.ssh/authorized_keys"


@contextmanager
def writable(inst: Instance) -> Iterator[Writable]:
    """Lend a copy of the guest's writable layer as it is now. Raises UnavailableError, VmctlError."""
    if os.geteuid() != 0:
        raise UnavailableError("reading a guest's disk needs root, to mount a copy of it", hint="use sudo")
    if inst.state.boot == boot.DISK:
        raise UnavailableError(f"{inst.name} runs from a disk image, which has no layers")
    with ExitStack() as stack:
        copy = stack.enter_context(staging()).path("disk.img")
        with _held(inst):
            # holes stay holes; where the file system can, both share their blocks until one changes
            run(["cp", "--sparse=always", "--reflink=auto", files.disk(inst), copy], timeout_s=COPY_TIMEOUT_S)
        try:
            # the journal of a guest that was killed is replayed: the copy is ours
            device = stack.enter_context(loop_device(copy, writable=True))
            folder = os.path.join(stack.enter_context(detached(device, "ext4", read_only=False)), "upper")
        except OSError as error:
            raise VmctlError(f"the copy of {inst.name}'s disk cannot be mounted: {error.strerror}") from error
        if inst.state.boot == boot.SYSTEM:
            _forget_instance(folder, keys.load_or_make(files.client_key(inst)).public)
        yield Writable(folder, MADE)


@contextmanager
def _held(inst: Instance) -> Iterator[None]:
    """Have a running guest write nothing meanwhile. One command at a time, a second one waits for the first."""
    fd = os.open(inst.path("copying"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not _runs(inst):
            yield
            return
        token = os.urandom(4).hex()
        try:
            _order(inst, f"freeze {token}")
            _wait_for(inst, f"frozen {token}")
            yield
        finally:
            _order(inst, "thaw")
        _wait_for(inst, f"thawed {token}")
    finally:
        os.close(fd)


def _wait_for(inst: Instance, mark: str) -> None:
    """Wait until the guest has said so, or is gone: then its disk does not change any more."""
    token = mark.partition(" ")[2]
    deadline = time.monotonic() + FREEZE_TIMEOUT_S
    while mark not in (said := watch.marks(inst)) and _runs(inst):
        if f"disturbed {token}" in said:
            raise VmctlError(f"the guest {inst.name} went on while its disk was copied", hint="try again")
        if time.monotonic() > deadline:
            raise DeadlineError(
                f"the guest {inst.name} has not held back its writing within {FREEZE_TIMEOUT_S:g} s",
                hint="a guest that is still booting cannot yet",
                detail=watch.console_tail(inst),
            )
        time.sleep(0.005)


def _order(inst: Instance, line: str) -> None:
    with suppress(OSError):  # QEMU has just ended, or never read the last hundred orders
        control.order(inst, line)


def _runs(inst: Instance) -> bool:
    return processes.alive(inst.state.pid, inst.state.pid_start)


def _forget_instance(folder: str, client_public: str) -> None:
    """Remove from a copy what is this instance's own and none of its changes."""
    for path in _OF_THE_INSTANCE:
        with suppress(OSError), _parent(folder, path) as (parent, name):
            _remove(parent, name)
    with suppress(OSError), _parent(folder, _AUTHORIZED_KEYS) as (parent, name):
        _remove_line(parent, name, client_public.split()[1].encode())


@contextmanager
def _parent(folder: str, path: str) -> Iterator[tuple[int, str]]:
    """Lend the folder that `path` is in; no link is followed, for it would lead into the host. Raises OSError."""
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


def _remove_line(parent: int, name: str, word: bytes) -> None:
    """Remove the lines with the word from a file, and the file where nothing remains."""
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    with os.fdopen(fd, "r+b") as file:
        lines = [line for line in file.readlines() if word not in line]
        file.seek(0)
        file.truncate()
        file.writelines(lines)
    if not any(line.strip() for line in lines):
        os.unlink(name, dir_fd=parent)
