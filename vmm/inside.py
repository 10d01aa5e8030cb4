"""What a guest reports about itself: its memory and its processes. The guest is hostile: all of it is bounded."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from vmctl.attach import frames
from vmctl.backend import Command
from vmctl.console import visible
from vmctl.copying.child import in_child
from vmctl.errors import StateError, VmctlError
from vmctl.instances.instance import Instance
from vmctl.linux import memory
from vmctl.spec.units import format_size
from vmm import boot, files

_ANSWER_BYTES = 1 << 16
_LISTING_BYTES = 1 << 20
_TICKS = 100  # per second: USER_HZ of every Linux on this architecture
# a line per process that is not of the kernel: pid, user, ticks, memory in KiB, command, with tabs in between
_LIST = """
for folder in /proc/[0-9]*; do
    rss='' pid=${folder#/proc/}
    [ $pid != $$ ] || continue
    while read -r key value rest; do
        case $key in Uid:) uid=$value ;; VmRSS:) rss=$value ;; esac
    done <$folder/status
    [ "$rss" ] || continue
    read -r line <$folder/stat || continue
    set -- ${line##*) }
    printf '%s\t%s\t%s\t%s\t%s\n' $pid "$uid" $((${12} + ${13})) "$rss" "$(tr '\\0\\n\\t' '   ' <$folder/cmdline)"
done 2>/dev/null
exit 0
"""
_SERVICE = "vmctl-workload.service"
_PIDS_MAX = "/sys/fs/cgroup/workload/pids.max"


def asked(inst: Instance) -> Callable[[float], Mapping[str, int]]:
    """See HasUsage."""
    if inst.state.boot != boot.DIRECT or inst.is_paused():
        return lambda timeout_s: {}
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(files.agent(inst))
        connection.sendall(frames.frame(0, frames.REQUEST, b"statistics\0") + frames.frame(0, frames.START))
    except OSError:
        connection.close()
        return lambda timeout_s: {}
    return lambda timeout_s: _answer(connection, timeout_s)


def memory_now(inst: Instance, timeout_s: float) -> Mapping[str, int]:
    """Return what `asked` does, also of a system, which has no agent. Raises VmctlError."""
    if inst.state.boot == boot.DIRECT:
        return asked(inst)(timeout_s)
    return _sizes(_output(inst, "cat", "/proc/meminfo"))


def _answer(connection: socket.socket, timeout_s: float) -> Mapping[str, int]:
    with connection:
        return _sizes(_text(connection, timeout_s).decode(errors="replace"))


def _sizes(text: str) -> Mapping[str, int]:
    try:
        sizes = memory.meminfo(text)
        used, available = sizes["MemTotal"] - sizes["MemAvailable"], sizes["MemAvailable"]
    except (ValueError, KeyError, IndexError):
        return {}
    return {"memory_bytes": used, "available_bytes": available} if 0 <= used < 1 << 60 else {}


def _text(connection: socket.socket, timeout_s: float) -> bytes:
    """Return what the agent has sent until it ends, or until the time is over."""
    arrived, found = bytearray(), bytearray()
    end_s = time.monotonic() + timeout_s
    while len(found) < _ANSWER_BYTES:
        if not select.select([connection], [], [], max(0.0, end_s - time.monotonic()))[0]:
            break
        data = b""
        with suppress(OSError):
            data = connection.recv(_ANSWER_BYTES)
        if not data:
            break
        arrived += data
        try:
            for _, kind, payload in frames.take(arrived):
                if kind == frames.OUTPUT:
                    found += payload
                elif kind in (frames.EXIT, frames.FAILURE):
                    return bytes(found)
        except ValueError:
            break
    return bytes(found)


def listing(inst: Instance) -> list[tuple[str, str, str, str, str]]:
    """See HasUsage."""
    rows = []
    for line in _output(inst, "sh", "-c", _LIST).splitlines():
        words = line.split("\t", 4)
        if len(words) == 5 and all(word.isascii() and word.isdecimal() and len(word) < 18 for word in words[:4]):
            pid, uid, ticks, rss = map(int, words[:4])
            seconds = ticks // _TICKS
            used = f"{seconds // 60}:{seconds % 60:02}"
            rows.append((str(pid), str(uid), used, format_size(rss * 1024), visible(words[4]).strip()))
    return sorted(rows, key=lambda row: int(row[0]))


def limit_pids(inst: Instance, pids: int) -> int:
    """Set the limit of processes of the workload's group in a guest, and return what the guest then has.

    In a system that is the group of the workload's service. Raises VmctlError.
    """
    script = f"echo {pids} >{_PIDS_MAX} && cat {_PIDS_MAX}"
    if inst.state.boot != boot.DIRECT:
        change = f"systemctl set-property --runtime {_SERVICE} TasksMax={pids}"
        script = f"{change} && systemctl show --property TasksMax --value {_SERVICE}"
    text = _output(inst, "sh", "-c", script).strip()
    if text != str(pids):
        raise VmctlError(f"the guest {inst.name} did not take the limit of {pids} processes: it has {text[:20]!r}")
    return pids


def _output(inst: Instance, *words: str) -> str:
    """Return what a program of the guest writes. Raises StateError, VmctlError."""
    if inst.is_paused():
        raise StateError(f"{inst.name} is paused", hint=f"`vmctl unpause {inst.name}` lets it go on")
    with in_child(lambda fd: _run(inst, words, fd), reads=False) as (fd, _):
        found = b""
        while len(found) < _LISTING_BYTES and (part := os.read(fd, 65536)):
            found += part
    return found.decode(errors="replace")


def _run(inst: Instance, words: tuple[str, ...], output: int) -> list[str]:
    from vmm import execute

    null = os.open(os.devnull, os.O_RDWR)
    for number, fd in enumerate((null, output, null)):
        os.dup2(fd, number)
    code = execute.execute(inst, Command(words, (), "/", "0"), tool=True)
    if code:
        raise VmctlError(f"{words[0]} in the guest {inst.name} ended with code {code}")
    return []
