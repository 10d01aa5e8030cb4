"""The system call filter: a list of refused calls, assembled into classic BPF.

See seccomp(2), Documentation/userspace-api/seccomp_filter.rst, and linux/filter.h for the instructions. The refused
calls are listed in configs/seccomp/default.json, some of them only with certain arguments. All others up to the newest
that was looked at are allowed.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

from containers.identity import CAPABILITIES
from vmctl.light import json
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

PROFILE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "configs", "seccomp", "default.json")

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_ANY_BIT, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; each argument has 8 bytes, little endian
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def default_filter(capabilities: int, machine: str | None = None) -> bytes:
    """Return the BPF program of the default profile for a workload with these capabilities.

    It is empty if the profile does not cover this machine's architecture.
    """
    machine = machine or os.uname().machine
    if machine not in _AUDIT_ARCH:
        return b""
    with open(PROFILE, encoding="utf-8") as file:
        profile = json.load(file)
    return b"".join(_program(profile, capabilities, machine))


def _program(profile: dict[str, Any], capabilities: int, machine: str) -> Iterator[bytes]:
    yield _instruction(_LOAD, _ARCH)
    yield _instruction(_JUMP_IF_EQUAL, _AUDIT_ARCH[machine], 1, 0)
    yield _instruction(_RETURN, _KILL)
    yield _instruction(_LOAD, _NR)
    if machine == "x86_64":  # the x32 ABI has the same calls under other numbers
        yield from _refuse(_JUMP_IF_AT_LEAST, _X32_BIT, errno.ENOSYS)
    yield from _refuse(_JUMP_IF_AT_LEAST, profile["newest"] + 1, errno.ENOSYS)
    for rule in profile["rules"]:
        if rule["unless"] is None or not _has(capabilities, rule["unless"]):
            for numbers in rule["calls"].values():
                if numbers[machine] is not None:
                    yield from _refuse(_JUMP_IF_EQUAL, numbers[machine], errno.EPERM)
    for rule in profile["arguments"]:
        if rule["unless"] is None or not _has(capabilities, rule["unless"]):
            for values in rule["refused"].values():
                yield from _refuse_arguments(rule["numbers"][machine], values)
    for rule in profile["choices"]:
        yield from _allow_only(rule, machine)
    if not _has(capabilities, "SYS_ADMIN"):
        # BPF cannot read clone3's flags, which are passed by pointer; after ENOSYS the C library uses clone
        yield from _refuse(_JUMP_IF_EQUAL, profile["clone3"][machine], errno.ENOSYS)
        yield _instruction(_JUMP_IF_EQUAL, profile["clone"][machine], 0, 3)
        yield _instruction(_LOAD, _ARGUMENTS)
        yield from _refuse(_JUMP_IF_ANY_BIT, int(profile["clone_namespace_flags"], 16), errno.EPERM)
    yield _instruction(_RETURN, _ALLOW)


def _refuse(test: int, value: int, number: int) -> tuple[bytes, bytes]:
    """Return the instructions that fail with errno `number` if the test is true."""
    return _instruction(test, value, 0, 1), _instruction(_RETURN, _ERRNO | number)


def _refuse_arguments(number: int, values: dict[str, str]) -> Iterator[bytes]:
    """Yield the instructions that fail with EPERM for a call with these arguments; they keep its number loaded.

    Only the lower half of an argument is compared: the upper half of an int is not read by the kernel, so a comparison
    of both could be passed by setting bits there.
    """
    left = 2 * len(values) + 1  # instructions up to the last one, which loads the number again
    yield _instruction(_JUMP_IF_EQUAL, number, 0, left + 1)
    for index, value in values.items():
        left -= 2
        yield _instruction(_LOAD, _ARGUMENTS + 8 * int(index))
        yield _instruction(_JUMP_IF_EQUAL, int(value, 16), 0, left)
    yield _instruction(_RETURN, _ERRNO | errno.EPERM)
    yield _instruction(_LOAD, _NR)


def _allow_only(rule: dict[str, Any], machine: str) -> Iterator[bytes]:
    """Yield the instructions that refuse all other values of one argument; they keep the call's number loaded."""
    tests = [(_NR, rule["numbers"][machine])]
    tests += [(_ARGUMENTS + 8 * int(index), int(value, 16)) for index, value in rule["when"].items()]
    allowed = rule["allowed"].values()
    left = 2 * len(tests) + len(allowed) + 2  # instructions up to the last one, which loads the number again
    for offset, value in tests:
        left -= 2
        yield _instruction(_LOAD, offset)
        yield _instruction(_JUMP_IF_EQUAL, value, 0, left)
    yield _instruction(_LOAD, _ARGUMENTS + 8 * rule["argument"])
    for number, value in enumerate(allowed):
        yield _instruction(_JUMP_IF_EQUAL, int(value, 16), len(allowed) - number, 0)
    yield _instruction(_RETURN, _ERRNO | rule["errno"])
    yield _instruction(_LOAD, _NR)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _has(capabilities: int, name: str) -> bool:
    return bool(capabilities >> CAPABILITIES.index(name) & 1)
