"""The devices that processes of a control group may open, no matter which nodes they find or make.

v1: the controller `devices` (cgroup-v1/devices.rst). v2: a BPF program of type CGROUP_DEVICE, which the kernel keeps as
long as the group exists (cgroup-v2.rst, "Device controller"; struct bpf_cgroup_dev_ctx in linux/bpf.h).
"""

from __future__ import annotations

import os
import struct

from vmctl.linux import kernelfile, syscalls
from vmctl.linux.cgroups import DEVICES, Cgroup
from vmctl.named import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Device(NamedTuple):
    """A device, `c` or `b`; without a minor number all those of the major number."""

    major: int
    minor: int | None = None
    kind: str = "c"
    access: str = "rwm"  # of `r` and `w`; nodes of each device can be made


# Docker's list without the console and the tunnel: null; zero; full, random and urandom; tty; ptmx; terminals.
ALLOWED = (*(Device(1, minor) for minor in (3, 5, 7, 8, 9)), Device(5, 0), Device(5, 2), Device(136))


def restrict(cgroup: Cgroup, more: Sequence[Device] = ()) -> bool:
    """Let the processes of a group open the allowed devices and `more` only; nodes of others can be made, not opened.

    Return False if this host has no way to do that, or gives an ordinary user none. Raises OSError.
    """
    if cgroup.layout.version == 1:
        return DEVICES in cgroup.folders and _write_list(cgroup.folders[DEVICES], more)
    return _attach(cgroup.folders["memory"], more) if "memory" in cgroup.folders else False


def _write_list(folder: str, more: Sequence[Device]) -> bool:
    kernelfile.write(f"{folder}/devices.deny", "a")
    kernelfile.write(f"{folder}/devices.allow", "c *:* m", "b *:* m", *map(_rule, (*ALLOWED, *more)))
    return True


def _rule(device: Device) -> str:
    return f"{device.kind} {device.major}:{'*' if device.minor is None else device.minor} {device.access}"


def _attach(folder: str, more: Sequence[Device]) -> bool:
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        loaded = syscalls.bpf_program(syscalls.BPF_PROG_TYPE_CGROUP_DEVICE, program(more))
        try:
            syscalls.bpf_attach(loaded, group, syscalls.BPF_CGROUP_DEVICE)
        finally:
            os.close(loaded)
    except PermissionError:  # an ordinary user, who cannot open devices of others anyway
        return False
    finally:
        os.close(group)
    return True


# register 1 is the context: access << 16 | type, major, minor; the program returns 1 to allow
_TYPE, _ACCESS, _MAJOR, _MINOR, _RESULT, _FREE = 2, 3, 4, 5, 0, 1
_MKNOD, _CHARACTER = 1, 2
_KINDS, _BITS = {"b": 1, "c": _CHARACTER}, {"r": 2, "w": 4}
_LOAD, _COPY, _SET, _AND, _SHIFT, _EXIT = 0x61, 0xBF, 0xB7, 0x57, 0x77, 0x95
_JUMP_UNLESS = 0x55


def program(more: Sequence[Device] = ()) -> bytes:
    """Return the BPF program of the list."""
    tests = [_test(device) for device in ALLOWED]
    body = [
        _instruction(_SET, _RESULT, constant=1),
        _instruction(_LOAD, _TYPE, 1, 0),
        _instruction(_COPY, _ACCESS, _TYPE),
        _instruction(_SHIFT, _ACCESS, constant=16),
        _instruction(_AND, _TYPE, constant=0xFFFF),
        _instruction(_LOAD, _MAJOR, 1, 4),
        _instruction(_LOAD, _MINOR, 1, 8),
        _instruction(_JUMP_UNLESS, _ACCESS, offset=1, constant=_MKNOD),
        _instruction(_EXIT),
        _instruction(_JUMP_UNLESS, _TYPE, offset=sum(map(len, tests)), constant=_CHARACTER),
        *(instruction for test in (*tests, *map(_test_of_all, more)) for instruction in test),
        _instruction(_SET, _RESULT, constant=0),
        _instruction(_EXIT),
    ]
    return b"".join(body)


def _test(device: Device) -> list[bytes]:
    """Return the instructions that end the program if it is this device."""
    if device.minor is None:
        return [_instruction(_JUMP_UNLESS, _MAJOR, offset=1, constant=device.major), _instruction(_EXIT)]
    return [
        _instruction(_JUMP_UNLESS, _MAJOR, offset=2, constant=device.major),
        _instruction(_JUMP_UNLESS, _MINOR, offset=1, constant=device.minor),
        _instruction(_EXIT),
    ]


def _test_of_all(device: Device) -> list[bytes]:
    """Return the instructions that end the program if it is this device, and nothing but its access is asked for."""
    refused = sum(bit for letter, bit in _BITS.items() if letter not in device.access)
    parts = ((_TYPE, _KINDS[device.kind]), (_MAJOR, device.major), (_MINOR, device.minor or 0))
    return [
        *(_instruction(_JUMP_UNLESS, part, offset=6 - i, constant=value) for i, (part, value) in enumerate(parts)),
        _instruction(_COPY, _FREE, _ACCESS),
        _instruction(_AND, _FREE, constant=refused),
        _instruction(_JUMP_UNLESS, _FREE, offset=1),
        _instruction(_EXIT),
    ]


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | destination, offset, constant)
