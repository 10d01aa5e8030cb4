"""Contenders that start a guest: vmctl, the same QEMU command line without libvirt and vmctl, and virsh."""

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
from vmctl.programs import CommandError, run
from vmctl.spec.workload import Ready

TITLE = "guest start to first byte"
OURS, BY_HAND, VIRSH_CREATE = "vmctl", "QEMU by hand", "virsh create"
SYSTEM = "qemu:///system"
VIRSH = ("virsh", "--quiet", "--connect", SYSTEM)
DOMAIN = "domain.xml"  # in a guest's directory
OUTPUT = "by-hand-"  # prefix of the files that the workload's output may go to
ANSWER_S = 20.0  # time limit for the answer of a service
DEADLINE_S = 120.0
PERIOD_S = 0.0001


def contenders() -> dict[str, Contender]:
    """Return the ways to boot the guest that writes one line and shuts down."""
    return {OURS: lambda: ours("vm", "detached"), BY_HAND: by_hand, VIRSH_CREATE: with_virsh}


def own_disk_bytes() -> int:
    """Return the bytes that only an idle guest takes on disk, not shared ones. Raises VmctlError if it fails."""
    command = ("sh", "-c", "echo idle; sleep 1000")
    idle = workload()._replace(name=_name(), command=command, ready=Ready(log="idle"))
    inst = engine.up(idle, "vm")
    try:
        return footprint(inst).disk_bytes
    finally:
        engine.rm(inst.name, force=True)


def with_virsh() -> float:
    """Return the seconds from just before `virsh create` is executed to the workload's first byte.

    Raises UnavailableError if no libvirtd answers. vmctl does not need one, since it uses the embedded driver.
    """
    _refuse_without_daemon()
    with prepared() as (_, folder):
        name, path = _name(), os.path.join(folder, DOMAIN)
        write_atomic(path, as_another(_text(path), name))
        start_s = time.monotonic()
        try:
            run([*VIRSH, "create", path], timeout_s=DEADLINE_S)
            return _first_byte(folder, lambda: False) - start_s
        finally:
            run([*VIRSH, "destroy", name], check=False)


def as_another(xml: str, name: str) -> str:
    """Return a domain's XML with another name, without its UUID (libvirt makes a new one), and with its output moved.

    The output goes to a file whose name begins with OUTPUT.
    """
    xml = re.sub(r"<name>[^<]*</name>", f"<name>{name}</name>", xml)
    return re.sub(r"<uuid>[^<]*</uuid>", "", xml).replace("/stdout.log", f"/{OUTPUT}stdout")


def _refuse_without_daemon() -> None:
    try:
        run([*VIRSH, "version"], timeout_s=ANSWER_S)
    except CommandError as error:
        raise UnavailableError(f"no libvirtd answers at {SYSTEM}: {error}") from error


def by_hand() -> float:
    """Return the seconds that `start` measures, of a new guest."""
    with prepared() as (argv, folder):
        return start(argv, folder)


def start(argv: list[str], folder: str) -> float:
    """Return the seconds from just before QEMU is executed to the workload's first byte in a file that QEMU writes."""
    for path in outputs(folder):  # of a start before this one
        os.unlink(path)
    start_s = time.monotonic()
    pid = spawn(argv, os.path.join(folder, "qemu.log"))
    try:
        return _first_byte(folder, lambda: ended(pid)) - start_s
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def outputs(folder: str) -> list[str]:
    """Return the paths of the files with the output of QEMU's ports."""
    return [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(OUTPUT)]


@contextmanager
def prepared() -> Iterator[tuple[list[str], str]]:
    """Lend QEMU's command line of a guest, and a folder with a copy of its files from before its first boot."""
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
    """Return QEMU's command line without libvirt: no descriptors from libvirt, no monitor, and no waiting at the start.

    QEMU itself opens the files and sockets that libvirt had opened, in `folder`.
    """
    kept: list[str] = []
    for word in argv:
        if word == "-S":
            continue
        if kept[-1:] == ["-add-fd"]:
            kept.pop()
            continue
        word = re.sub(r"^socket,id=charmonitor,.*", "null,id=charmonitor", word)
        word = re.sub(r"^(socket,id=(\w+)),fd=\d+", rf"\1,path={folder}/\2", word)
        kept.append(re.sub(r"^(file,id=(\w+)),path=/dev/fdset/\d+", rf"\1,path={folder}/{OUTPUT}\2", word))
    return kept


def _first_byte(folder: str, ended: Callable[[], bool]) -> float:
    """Return the monotonic time in seconds at which a file of QEMU's begins with the workload's output."""
    deadline_s = time.monotonic() + DEADLINE_S
    word = PROGRAM[-1].encode()
    while True:
        if any(_begins_with(path, word) for path in outputs(folder)):
            return time.monotonic()
        if ended():
            raise VmctlError("QEMU ended before the guest wrote", detail=_text(os.path.join(folder, "qemu.log")))
        if time.monotonic() > deadline_s:
            raise DeadlineError(f"the guest produced no output within {DEADLINE_S:g} s")
        time.sleep(PERIOD_S)


def ended(pid: int) -> bool:
    """Return whether a child has ended; it is not waited for."""
    return bool(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))


def _name() -> str:
    return f"peers-{os.urandom(3).hex()}"


def _begins_with(path: str, word: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(word)) == word


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
