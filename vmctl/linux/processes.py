"""Processes, identified by pid and start time: the kernel gives a pid to another process later."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache

from vmctl import trace
from vmctl.light import signal
from vmctl.linux import kernelfile


def start_time(pid: int) -> int | None:
    """Return the start time in clock ticks since boot (proc(5), stat field 22), or None if the process is gone."""
    found = fields(pid)
    return int(found[19]) if found else None


_SYS_RT_SIGTIMEDWAIT = {"x86_64": "128"}.get(os.uname().machine, "137")
_EXEC_S, _EXEC_LOOK_S = 1.0, 0.001  # a process can also make its command line empty for ever
_NOT_DROPPED = ("SigCgt", "SigIgn", "SigBlk")


@cache
def boot_id() -> str:
    """Return the id of this boot of the host (random(4)), "" if it cannot be read.

    After a restart another process can have the same pid and even the same start time.
    """
    try:
        return kernelfile.read("/proc/sys/kernel/random/boot_id").strip()
    except OSError:
        return ""


def alive(pid: int | None, start: int | None) -> bool:
    """Return whether exactly this process still runs; a zombie does not."""
    found = fields(pid) if pid else []
    return bool(found) and found[0] not in "ZX" and start == int(found[19])


def exit_code(status: int) -> int:
    """Return the exit code a shell shows for a wait status: 128+n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def command(pid: int) -> list[str]:
    """Return the words with which a process was executed, none if it is gone (proc(5), cmdline)."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def settled_command(pid: int, start: int | None) -> list[str]:
    """Return the same of exactly this process; in the middle of an execve(2) it has none, which is waited for."""
    end_s = time.monotonic() + _EXEC_S
    while not (words := command(pid)) and alive(pid, start) and time.monotonic() < end_s:
        time.sleep(_EXEC_LOOK_S)
    return words


def drops(pid: int, signum: int) -> bool:
    """Return whether the kernel drops a signal whose default is to end a process, and it is not the process's choice.

    It does that for PID 1 of a namespace without a handler (pid_namespaces(7)). A program that blocks a signal reads
    it: signalfd(2), sigwait(3). See proc(5), status.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if line.startswith(("NSpid:", *_NOT_DROPPED)))
    except (FileNotFoundError, ProcessLookupError):
        return False
    is_first = len(lines["NSpid"].split()) > 1 and lines["NSpid"].split()[-1] == "1"
    kept = any(int(lines[key], 16) >> (signum - 1) & 1 for key in _NOT_DROPPED)
    return is_first and not kept and not _waits_for_signals(pid)


def _waits_for_signals(pid: int) -> bool:
    """Return whether a process is in sigtimedwait(2), as the usual init of a container is (proc(5), syscall).

    It blocks the signals then, but the kernel does not show them as blocked.
    """
    try:
        with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
            return file.read().split()[:1] == [_SYS_RT_SIGTIMEDWAIT]
    except OSError:
        return False


def send(pid: int | None, start: int | None, signum: int) -> bool:
    """Send a signal to exactly this process (pidfd_send_signal(2)); return False if it is gone."""
    if not pid:
        return False
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(pid, start):
            return False
        signal.pidfd_send_signal(fd, signum)
        if trace.on:
            trace.step(f"kill -{signum} {pid}")
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def end(pid: int, start: int | None, timeout_s: float = 5.0) -> bool:
    """Kill exactly this process and wait until it is gone; return False if it still runs after `timeout_s`."""
    send(pid, start, signal.SIGKILL)
    deadline = time.monotonic() + timeout_s
    while alive(pid, start):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def end_rooted(folder: str, timeout_s: float = 5.0) -> bool:
    """Kill all processes whose root is in a folder; return False if one still runs after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while found := _rooted(folder):
        if time.monotonic() > deadline:
            return False
        for pid in found:
            send(pid, start_time(pid), signal.SIGKILL)
        time.sleep(0.001)
    return True


def _rooted(folder: str) -> list[int]:
    """Return the processes whose root (proc(5), /proc/PID/root) is a folder or below it."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it is gone, or not of this user
            if f"{os.readlink(f'/proc/{name}/root')}/".startswith(f"{folder}/"):
                found.append(int(name))
    return found


def pss_bytes(pid: int) -> int | None:
    """Return the proportional set size in bytes (proc(5), smaps_rollup), or None if it cannot be read."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:")), None)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def fields(pid: int) -> list[str]:
    """Return the fields of proc(5), stat, from the state on; none if the process is gone."""
    try:
        return kernelfile.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
