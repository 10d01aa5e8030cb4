"""Contenders that start a guest: ours, and the very same QEMU command line without libvirt and us."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from bench.peers.command import spawn
from bench.peers.containers import PROGRAM, Contender, ours, workload
from bench.sample import take
from vmctl import engine, registry
from vmctl.errors import DeadlineError, VmctlError
from vmctl.run import run
from vmctl.workload import Ready

TITLE = "guest start to first byte"
OURS, BY_HAND = "vmctl", "QEMU by hand"
DEADLINE_S = 120.0
PERIOD_S = 0.0001


def contenders() -> dict[str, Contender]:
    """Return both ways to boot the guest that writes one line and is done."""
    return {OURS: lambda: ours("vm", "detached"), BY_HAND: by_hand}


def own_disk_bytes() -> int:
    """Return the bytes that an idle guest takes on disk beside what it shares. Raises VmctlError where it fails."""
    idle = workload()._replace(command=("sh", "-c", "echo idle; sleep 1000"), ready=Ready(log="idle"))
    sample = take(idle, "vm", 1)
    if sample.disk_bytes is None:
        raise VmctlError(sample.error or "the guest's disk could not be read")
    return sample.disk_bytes


def by_hand() -> float:
    """Return the seconds from just before QEMU is executed to the workload's first byte in QEMU's file."""
    with _prepared() as (argv, folder):
        start_s = time.monotonic()
        pid = spawn(argv, os.path.join(folder, "qemu.log"))
        try:
            return _first_byte(folder, pid) - start_s
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def _prepared() -> Iterator[tuple[list[str], str]]:
    """Lend a guest's command line and a copy of its files as they were before anything had booted from them."""
    work = workload()._replace(name=f"peers-{os.urandom(3).hex()}")
    backend = registry.load("vm")
    inst = engine.create(work, backend)
    with TemporaryDirectory(prefix="vmctl-guest-") as folder, inst.locked():
        try:
            backend.prepare(inst)
            run(["cp", "-a", "--sparse=always", f"{inst.directory}/.", folder])
            backend.start(inst)
            with open(f"/proc/{inst.state.pid}/cmdline", encoding="utf-8") as file:
                argv = file.read().split("\0")[:-1]
            backend.signal(inst, signal.SIGKILL)
            yield without_libvirt([word.replace(inst.directory, folder) for word in argv], folder), folder
        finally:
            engine.remove(inst, backend)


def without_libvirt(argv: list[str], folder: str) -> list[str]:
    """Return QEMU's command line without what libvirt hands over as descriptors, and without waiting for its order.

    The monitor leads nowhere; files that libvirt has opened are opened by QEMU, in `folder`.
    """
    kept: list[str] = []
    for word in argv:
        if word == "-S":
            continue
        if kept[-1:] == ["-add-fd"]:
            kept.pop()
            continue
        word = re.sub(r"^socket,id=charmonitor,.*", "null,id=charmonitor", word)
        kept.append(re.sub(r"^(file,id=(\w+)),path=/dev/fdset/\d+", rf"\1,path={folder}/by-hand-\2", word))
    return kept


def _first_byte(folder: str, pid: int) -> float:
    """Return when one of QEMU's files began with what the workload writes, in monotonic seconds."""
    deadline_s = time.monotonic() + DEADLINE_S
    word = PROGRAM[-1].encode()
    while True:
        for name in os.listdir(folder):
            if name.startswith("by-hand-") and _begins_with(os.path.join(folder, name), word):
                return time.monotonic()
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise VmctlError("QEMU by hand ended without a word", detail=_text(os.path.join(folder, "qemu.log")))
        if time.monotonic() > deadline_s:
            raise DeadlineError(f"QEMU by hand was silent for {DEADLINE_S:g} s")
        time.sleep(PERIOD_S)


def _begins_with(path: str, word: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(word)) == word


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
