"""Save a running guest into a folder, while it is stopped for a moment: memory, state of the devices, and disk.

QEMU's `migrate` could write the memory to a file that guests can map later only if the memory was a shared file from
the beginning, and such a file would be written to the host's disk all the time. So QEMU saves its devices only
(xen-save-devices-state, which is not for Xen alone), and the memory is read from the process, which has stopped: pages
that are all zeros stay holes of the file.
"""

from __future__ import annotations

import errno
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from vmctl.errors import VmctlError
from vmctl.instances.instance import Instance
from vmctl.programs import run
from vmm import files, monitor

RAM, DEVICES, DISK, SEED = "ram", "devices", "disk.img", "seed.iso"
SAVE_S = 120.0  # a guest with much memory, on a slow disk
_BLOCK_BYTES = 1 << 16
_PAGE_BYTES = 1 << 12
_READ_BYTES = 1 << 21
_ADDRESS = re.compile(r"\((pc\.ram|vmctl\.ram|pc\.bios)\) is (0x[0-9a-f]{1,16})")  # HMP gpa2hva, hmp-cmds-target.c
_4_GIB = 1 << 32  # the firmware ends there
_PRESENT = 0b11 << 62  # bits of /proc/PID/pagemap: in memory, or swapped out


class Moment(NamedTuple):
    """What was seen while a guest was stopped."""

    pause_s: float
    ram_bytes: int  # written: without the holes


def save(inst: Instance, folder: str, *, disk: bool = True, end: Callable[[], None] | None = None) -> Moment:
    """Save a guest into an empty folder, with or without its disk, and let it go on, unless `end` ends it.

    Raises VmctlError, OSError. A guest that `vmctl pause` has paused stays so.
    """
    with monitor.conversation(inst, SAVE_S) as qemu:
        begin = time.monotonic()
        with _stopped(qemu, goes_on=end is None and not inst.is_paused()):
            _save_devices(qemu, os.path.join(folder, DEVICES))
            written = _save_memory(qemu, inst, os.path.join(folder, RAM))
            if disk:
                copy_sparse(files.disk(inst), os.path.join(folder, DISK))
            if end is not None:
                end()
    return Moment(time.monotonic() - begin, written)


def copy_sparse(source: str, target: str) -> None:
    """Copy a file with its holes, readable to its owner only; blocks are shared if the file system can do that."""
    with suppress(FileNotFoundError):  # of a start that has failed
        os.unlink(target)
    os.close(_new(target))
    run(["cp", "--sparse=always", "--reflink=auto", source, target], timeout_s=SAVE_S)


@contextmanager
def _stopped(qemu: monitor.Conversation, *, goes_on: bool) -> Iterator[None]:
    qemu.ask("stop")
    try:
        yield
    except BaseException:
        with suppress(monitor.RefusedError, OSError):
            qemu.ask("cont")
        raise
    if goes_on:
        qemu.ask("cont")


def _save_devices(qemu: monitor.Conversation, path: str) -> None:
    """Let QEMU write the state of the devices to a file that we have opened: it reaches no folder of ours."""
    fd = _new(path)
    try:
        number = qemu.ask("add-fd", fd=fd)["fdset-id"]
        try:
            # not live: else QEMU would give up its disks, for another QEMU to take them over
            qemu.ask("xen-save-devices-state", filename=f"/dev/fdset/{number}", live=False)
        finally:
            qemu.ask("remove-fd", fdset_id=number)
    finally:
        os.close(fd)


def _save_memory(qemu: monitor.Conversation, inst: Instance, path: str) -> int:
    """Write the memory of a stopped guest to a file, which is as large as it, and return how much was written."""
    size, begin = int(inst.state.own["memory_bytes"]), _place(qemu, inst, 0, ".ram")
    fd, written = _new(path), 0
    with open(fd, "wb", buffering=0) as file, open(f"/proc/{inst.state.pid}/mem", "rb", buffering=0) as memory:
        os.truncate(fd, size)
        buffer = memoryview(bytearray(_READ_BYTES))
        for at, length in _used(inst, begin, size):
            got = os.preadv(memory.fileno(), [buffer[:length]], begin + at)
            if got != length:
                raise VmctlError(f"the memory of {inst.name} cannot be read at {at:#x}")
            written += _write_blocks(file.fileno(), buffer[:length], at)
    return written


def _place(qemu: monitor.Conversation, inst: Instance, address: int, kind: str) -> int:
    """Return where a physical address of the guest, in memory of this kind, is in the process of QEMU."""
    found = _ADDRESS.search(str(qemu.ask("human-monitor-command", command_line=f"gpa2hva {address:#x}")))
    if not found or not found[1].endswith(kind):
        raise VmctlError(f"QEMU of {inst.name} does not report the place of the guest's memory")
    return int(found[2], 16)


def load_firmware(qemu: monitor.Conversation, inst: Instance, path: str) -> None:
    """Write this firmware into a guest that has not run so far, for its next reboot. Raises VmctlError, OSError.

    QEMU leaves it out if the state of the devices is to come, because a migration brings it (rom_reset in
    hw/core/loader.c).
    """
    with open(path, "rb") as file:
        content = file.read(_READ_BYTES)
    begin = _place(qemu, inst, _4_GIB - len(content), ".bios")
    with open(f"/proc/{inst.state.pid}/mem", "wb", buffering=0) as memory:
        os.pwrite(memory.fileno(), content, begin)


def load_memory(qemu: monitor.Conversation, inst: Instance, path: str) -> int:
    """Write saved memory into a guest that has not run so far, and return its `checksum`. Raises VmctlError, OSError.

    The pages of the guest that are not written stay untouched, so they use no memory of the host.
    """
    size, begin, found = int(inst.state.own["memory_bytes"]), _place(qemu, inst, 0, ".ram"), 0
    with open(path, "rb", buffering=0) as file, open(f"/proc/{inst.state.pid}/mem", "wb", buffering=0) as memory:
        if os.fstat(file.fileno()).st_size != size:
            raise VmctlError(f"{path} is not as large as the memory of {inst.name}")
        for at, block in _blocks(file.fileno()):
            if os.pwrite(memory.fileno(), block, begin + at) != len(block):
                raise VmctlError(f"the memory of {inst.name} cannot be written at {at:#x}")
            found = _summed(at, block, found)
    return found


def checksum(path: str) -> int:
    """Return a checksum of what a file contains, by which damage is noticed; its holes do not matter."""
    found = 0
    with open(path, "rb", buffering=0) as file:
        for at, block in _blocks(file.fileno()):
            found = _summed(at, block, found)
    return found


def _summed(at: int, block: bytes, before: int) -> int:
    return zlib.crc32(block, zlib.crc32(at.to_bytes(8, "little"), before))


def _blocks(fd: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of the blocks of a file that are not all zeros. Raises OSError."""
    at, zeros = 0, bytes(_BLOCK_BYTES)
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA) // _BLOCK_BYTES * _BLOCK_BYTES
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is only a hole after this place (lseek(2))
                return
            raise
        while (block := os.pread(fd, _BLOCK_BYTES, at)) and block != zeros[: len(block)]:
            yield at, block
            at += len(block)
        at += _BLOCK_BYTES


def _used(inst: Instance, begin: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of parts of the memory in which a page was ever touched (pagemap in proc(5))."""
    with open(f"/proc/{inst.state.pid}/pagemap", "rb", buffering=0) as file:
        for at in range(0, size, _READ_BYTES):
            length = min(_READ_BYTES, size - at)
            raw = os.pread(file.fileno(), -(-length // _PAGE_BYTES) * 8, (begin + at) // _PAGE_BYTES * 8)
            if any(raw):
                yield at, length


def _write_blocks(fd: int, data: memoryview, at: int) -> int:
    """Write the blocks that are not all zeros, neighbours together; return how many bytes."""
    zeros, begin, written = bytes(_BLOCK_BYTES), -1, 0
    for offset in range(0, len(data) + _BLOCK_BYTES, _BLOCK_BYTES):
        block = data[offset : offset + _BLOCK_BYTES]
        if len(block) and block.tobytes() != zeros[: len(block)]:
            begin = offset if begin < 0 else begin
        elif begin >= 0:
            written += _write(fd, data[begin : min(offset, len(data))], at + begin)
            begin = -1
    return written


def _write(fd: int, data: memoryview, at: int) -> int:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)
    return done


def _new(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
