"""Who uses a port of this host: from the kernel's socket tables to a process, and to the instance it serves.

Sources: /proc/net/tcp and its siblings (proc(5)): address and port in hexadecimal, state, inode; /proc/PID/fd.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from vmctl.linux import processes
from vmctl.named import TYPE_CHECKING
from vmctl.net import forwarder

if TYPE_CHECKING:
    from vmctl.spec.workload import Port

_BOUND = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN, and the state of an unconnected UDP socket


def holder_of(port: Port) -> str:
    """Return who uses `port` in this network namespace, in words: an instance, else a process with its pid."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    pid = next(_processes_with(sockets), None) if sockets else None
    return _describe(pid) if pid else "another process"


def _inodes(port: Port) -> Iterator[str]:
    for table in (port.protocol, f"{port.protocol}6"):
        try:
            with open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for fields in map(str.split, lines):
            address, _, number = fields[1].partition(":")
            is_same = int(number, 16) == port.host_port and fields[3] == _BOUND[port.protocol]
            if is_same and _overlap(_decode(address), port.address):
                yield fields[9]


def _overlap(used: str, wanted: str) -> bool:
    any_address = ("0.0.0.0", "::")
    return used == wanted or used in any_address or wanted in any_address


def _decode(address: str) -> str:
    from socket import AF_INET, AF_INET6, inet_ntop

    words = [int(address[index : index + 8], 16) for index in range(0, len(address), 8)]
    return inet_ntop(AF_INET if len(words) == 1 else AF_INET6, struct.pack(f"={len(words)}I", *words))


def _processes_with(sockets: set[str]) -> Iterator[int]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if any(_link(f"/proc/{name}/fd/{fd}") in sockets for fd in os.listdir(f"/proc/{name}/fd")):
                yield int(name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _describe(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            command = file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "a process that has just ended"
    words = processes.settled_command(pid, processes.start_time(pid))
    for number, word in enumerate(words[:-1]):
        if word in forwarder.program_files():
            return f"the instance {words[number + 1]}"
    return f"{command} (process {pid})"
