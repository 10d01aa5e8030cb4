"""The pieces of isolation, each switched on alone in a child process: how long it takes, what it hides and forbids."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from vmctl.copying.child import in_child
from vmctl.linux import kernelfile, syscalls

NAMESPACES = {  # namespaces(7)
    "mnt": syscalls.CLONE_NEWNS,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "pid": syscalls.CLONE_NEWPID,
    "net": syscalls.CLONE_NEWNET,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "user": syscalls.CLONE_NEWUSER,
}
_CALLS = 5000
_HOST_NAME_CALL = {"x86_64": 170}.get(os.uname().machine, 161)  # sethostname(2): the number for the filter
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_ERRNO_EPERM, _ALLOW = 0x00050001, 0x7FFF0000  # SECCOMP_RET_ERRNO with EPERM, SECCOMP_RET_ALLOW
_FILTER = b"".join(
    struct.pack("=HBBI", *one)
    for one in (
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 1, _HOST_NAME_CALL),
        (_RETURN, 0, 0, _ERRNO_EPERM),
        (_RETURN, 0, 0, _ALLOW),
    )
)


class Piece(NamedTuple):
    """What one piece does to the process that switches it on."""

    took_s: float
    other: str  # kinds of namespaces that are others than before
    refused: str  # attempts that fail with it
    call_s: float  # a system call with it: the fastest of some series


def _filter() -> None:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)  # without it only a privileged process may install a filter
    syscalls.seccomp_filter(_FILTER)


SWITCHES: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    **{f"namespace {kind}": (lambda flag=flag: syscalls.unshare(flag)) for kind, flag in NAMESPACES.items()},  # type: ignore[misc]
    "no capabilities": lambda: syscalls.capset(0),
    "system call filter": _filter,
}


def switch_on(name: str) -> Piece:
    """Return what a piece of SWITCHES does, switched on in a child that ends then. Raises VmctlError."""

    def act(_: int) -> list[str]:
        syscalls.capset(_capabilities())  # no change, but the first call makes types of ctypes, which takes longer
        before = _namespaces()
        begun_ns = time.perf_counter_ns()
        SWITCHES[name]()
        took_ns = time.perf_counter_ns() - begun_ns
        after = _namespaces()
        other = " ".join(kind for kind in NAMESPACES if before.get(kind) != after.get(kind))
        return [str(took_ns / 1e9), other, ", ".join(_refused()), str(_call_s())]

    with in_child(act, reads=False) as (_, report):
        pass
    return Piece(float(report[0]), report[1], report[2], float(report[3]))


def _capabilities() -> int:
    """Return the effective capabilities of this process as a bit mask (proc(5), status)."""
    status = kernelfile.read("/proc/self/status").splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("CapEff:")), 16)


def _namespaces() -> dict[str, str]:
    """Return the namespace of each kind that a child of this process would be in."""
    found = {}
    for kind in NAMESPACES:
        with suppress(FileNotFoundError):  # a PID namespace that has no process so far
            found[kind] = os.readlink(f"/proc/self/ns/{'pid_for_children' if kind == 'pid' else kind}")
    return found


def _refused() -> list[str]:
    """Return which attempts fail. They change nothing: the host name is the one that it has, the socket is closed."""
    attempts: dict[str, Callable[[], object]] = {
        "set the host name": lambda: syscalls.sethostname(os.uname().nodename),
        "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close(),
        "change the root": lambda: os.chroot("/"),
    }
    found = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            found.append(name)
    return found


def _call_s() -> float:
    series = []
    for _ in range(5):
        begun_ns = time.perf_counter_ns()
        for _ in range(_CALLS):
            os.getppid()
        series.append((time.perf_counter_ns() - begun_ns) / 1e9 / _CALLS)
    return min(series)
