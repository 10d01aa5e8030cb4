"""The lobby: the network namespace between the switch and pasta, and the process that waits to become pasta.

It belongs to a user namespace that has nothing else, so pasta has no privilege over the host or the switch. The end of
a cable from the switch is there. The first question by ARP on it means that a packet waits to leave: only then is the
tap made and pasta started, which takes 15 ms of processor time and 20 MB. Until then a shell waits in its place.
"""

from __future__ import annotations

import os
from _socket import AF_PACKET, SOCK_CLOEXEC, SOCK_DGRAM, htons, socket
from contextlib import suppress

from vmctl import trace
from vmctl.light import signal
from vmctl.linux import interpreter, kernelfile, netlink, syscalls
from vmctl.linux.threads import in_thread
from vmctl.named import TYPE_CHECKING
from vmctl.net import switch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

CABLE, CABLE_INDEX, TAP = "cable", 3, "out"
MTU = 65520  # the most that pasta takes; with 1500 it is 27 times slower
_BRIDGE, _BRIDGE_INDEX, _TAP_INDEX, _MAC = "lobby", 2, 4, "52:54:00:4d:00:02"
_ARP = 0x0806  # ETH_P_ARP
# A shell takes a tenth of what an interpreter would, in time and memory. In / it keeps no file system from unmounting.
_WAIT = 'cd / && head -c 1 >/dev/null && exec "$@"'
_NAMESPACES = {"lobby": "net", "lobby-users": "user"}  # file in the switch's folder -> kind; the first one comes last


def network() -> str:
    """Return the file of the network namespace; if it exists, so does the lobby."""
    return os.path.join(switch.folder(), "lobby")


def users() -> str:
    """Return the file of the user namespace."""
    return os.path.join(switch.folder(), "lobby-users")


def exists() -> bool:
    """Return whether there is something to remove."""
    return any(os.path.lexists(path) for path in (network(), users()))


def make(connect: Callable[[int], None]) -> None:
    """Make it, in a new user namespace that has this user as its root and nobody else. Raises OSError.

    `connect` is called with the pid of a process in it, and makes the cable.
    """
    read, write = os.pipe()
    flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET
    pid = syscalls.clone3(flags, exit_signal=signal.SIGCHLD)  # it keeps the namespaces until they are mounted
    if pid == 0:
        os.close(write)
        _wait(read)
    try:
        os.close(read)
        if trace.on:
            trace.step(f"unshare --user --map-root-user --net sleep infinity &  # process {pid}")
        for name in ("uid_map", "gid_map"):
            kernelfile.write(f"/proc/{pid}/{name}", "0 0 1")
        connect(pid)
        for path, kind in ((users(), "user"), (network(), "net")):  # `exists` of the second means that it is whole
            os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))
            syscalls.mount(f"/proc/{pid}/ns/{kind}", path, None, syscalls.MS_BIND)
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def _wait(end_fd: int) -> NoReturn:
    """Wait until the parent closes its end, or is killed."""
    try:
        os.read(end_fd, 1)
    finally:
        os._exit(0)


def spawn(program: str, words: Sequence[str]) -> int:
    """Start the process that becomes `program` when a packet waits to leave, and return its pid. Raises OSError.

    It also ends when the cable is removed, with the switch. It gets nothing from this process but an open socket.
    """
    if trace.on:  # what it does later is done now, so that each step is seen
        in_thread(lambda: _furnish(network()))
    argv = ["sh", "-c", _WAIT, "sh", *interpreter.words(__name__, [network(), program, *words])]
    questions = in_thread(_listen)
    try:
        return in_thread(lambda: _spawn(argv, questions.fileno()))
    finally:
        questions.close()


def _spawn(argv: list[str], stdin: int) -> int:
    syscalls.unshare(syscalls.CLONE_NEWPID)  # for the child: it can signal nobody else
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (1, 2)]
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), *null]
    return os.posix_spawn("/bin/sh", argv, {"LC_ALL": "C"}, file_actions=actions, setsid=True)


def _listen() -> socket:
    """Have this thread enter the lobby, and return a socket that can be read when something is asked on the cable."""
    _enter(network())
    switch.disable_ipv6()
    netlink.apply(netlink.set_up(CABLE))
    questions = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(_ARP))
    questions.bind((CABLE, _ARP))
    return questions


def _enter(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
    finally:
        os.close(fd)


def main(path: str, program: str, *words: str) -> NoReturn:
    """Connect the cable with a tap in the lobby at `path`, and become `program`, which answers on it."""
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    in_thread(lambda: _furnish(path))
    syscalls.reset_signals()  # with SIGPIPE ignored, as Python has it, the pasta of 2023 exits
    os.execve(program, words, {})


def _furnish(path: str) -> None:
    """Have this thread enter the lobby and connect the cable with the tap; what was made before stays."""
    from vmctl.linux.taps import new_tap

    _enter(path)
    with suppress(FileExistsError):
        netlink.apply(netlink.new_bridge(_BRIDGE, _BRIDGE_INDEX, _MAC, MTU))
    new_tap(TAP, _TAP_INDEX, headers=False)
    netlink.apply(netlink.set_up(CABLE, _BRIDGE_INDEX), netlink.set_up(TAP, _BRIDGE_INDEX, MTU))


def remove() -> None:
    """Remove it; its processes are to be ended before."""
    for path in (network(), users()):
        with suppress(OSError):
            syscalls.umount2(path, syscalls.MNT_DETACH)
        with suppress(FileNotFoundError):
            os.unlink(path)
