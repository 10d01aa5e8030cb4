"""Contenders that start a guest: ours, the very same QEMU command line without libvirt and us, and virsh."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from bench.peers.command import spawn
from bench.peers.containers import PROGRAM, Contender, ours, workload
from vmctl import backends, engine, removal
from vmctl.errors import DeadlineError, UnavailableError, VmctlError
from vmctl.footprint import footprint
from vmctl.linux.filetree import write_atomic
from vmctl.run import CommandError, run
from vmctl.workload import Ready

TITLE = "guest start to first byte"
OURS, BY_HAND, VIRSH_CREATE = "vmctl", "QEMU by hand", "virsh create"
SYSTEM = "qemu:///system"
VIRSH = ("virsh", "--quiet", "--connect", SYSTEM)
DOMAIN = "domain.xml"  # in a guest's directory
SEEN = "by-hand-"  # how the files begin that the workload's output is looked for in
ANSWER_S = 20.0  # how long a service may take to say that it is there
DEADLINE_S = 120.0
PERIOD_S = 0.0001


def contenders() -> dict[str, Contender]:
    """Return the ways to boot the guest that writes one line and is done."""
    return {OURS: lambda: ours("vm", "detached"), BY_HAND: by_hand, VIRSH_CREATE: with_virsh}


def own_disk_bytes() -> int:
    """Return the bytes that an idle guest takes on disk beside what it shares. Raises VmctlError where it fails."""
    command = ("sh", "-c", "echo idle; sleep 1000")
    idle = workload()._replace(name=_name(), command=command, ready=Ready(log="idle"))
    inst = engine.up(idle, "vm")
    try:
        return footprint(inst).disk_bytes
    finally:
        engine.rm(inst.name, force=True)


def with_virsh() -> float:
    """Return the seconds from just before `virsh create` is executed to the workload's first byte.

    Raises UnavailableError where no libvirtd answers: ours is embedded, and nobody needs one for us.
    """
    _refuse_without_daemon()
    with _prepared() as (_, folder):
        name, path = _name(), os.path.join(folder, DOMAIN)
        write_atomic(path, as_another(_text(path), name))
        start_s = time.monotonic()
        try:
            run([*VIRSH, "create", path], timeout_s=DEADLINE_S)
            return _first_byte(folder, lambda: False) - start_s
        finally:
            run([*VIRSH, "destroy", name], check=False)


def as_another(xml: str, name: str) -> str:
    """Return a domain under another name, with a UUID that libvirt makes up, and with output where it is looked for."""
    xml = re.sub(r"<name>[^<]*</name>", f"<name>{name}</name>", xml)
    return re.sub(r"<uuid>[^<]*</uuid>", "", xml).replace("/stdout.log", f"/{SEEN}stdout")


def _refuse_without_daemon() -> None:
    try:
        run([*VIRSH, "version"], timeout_s=ANSWER_S)
    except CommandError as error:
        raise UnavailableError(f"no libvirtd answers at {SYSTEM}: {error}") from error


def by_hand() -> float:
    """Return the seconds from just before QEMU is executed to the workload's first byte in QEMU's file."""
    with _prepared() as (argv, folder):
        start_s = time.monotonic()
        pid = spawn(argv, os.path.join(folder, "qemu.log"))
        try:
            return _first_byte(folder, lambda: _ended(pid)) - start_s
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def _prepared() -> Iterator[tuple[list[str], str]]:
    """Lend a guest's command line and a copy of its files as they were before anything had booted from them."""
    backend = backends.load("vm")
    inst = engine.create(workload()._replace(name=_name()), backend)
    with TemporaryDirectory(prefix="vmctl-guest-") as folder, inst.locked():
        try:
            with backend.prepare(inst) as start:
                run(["cp", "-a", "--sparse=always", f"{inst.directory}/.", folder])
                domain = os.path.join(folder, DOMAIN)
                write_atomic(domain, _text(domain).replace(inst.directory, folder))
                start.begin()
            with open(f"/proc/{inst.state.pid}/cmdline", encoding="utf-8") as file:
                argv = file.read().split("\0")[:-1]
            backend.signal(inst, signal.SIGKILL)
            yield without_libvirt([word.replace(inst.directory, folder) for word in argv], folder), folder
        finally:
            removal.remove(inst, backend)


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
        kept.append(re.sub(r"^(file,id=(\w+)),path=/dev/fdset/\d+", rf"\1,path={folder}/{SEEN}\2", word))
    return kept


def _first_byte(folder: str, ended: Callable[[], bool]) -> float:
    """Return when one of QEMU's files began with what the workload writes, in monotonic seconds."""
    deadline_s = time.monotonic() + DEADLINE_S
    word = PROGRAM[-1].encode()
    while True:
        for name in os.listdir(folder):
            if name.startswith(SEEN) and _begins_with(os.path.join(folder, name), word):
                return time.monotonic()
        if ended():
            raise VmctlError("QEMU by hand ended without a word", detail=_text(os.path.join(folder, "qemu.log")))
        if time.monotonic() > deadline_s:
            raise DeadlineError(f"the guest was silent for {DEADLINE_S:g} s")
        time.sleep(PERIOD_S)


def _ended(pid: int) -> bool:
    return bool(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))


def _name() -> str:
    return f"peers-{os.urandom(3).hex()}"


def _begins_with(path: str, word: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(word)) == word


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
