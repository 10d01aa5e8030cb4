"""The name server of a network: dnsmasq in the switch, started with the network's second instance, ended with its last.

Every instance of the network can send it anything. So it runs as a user that nobody else is, without a privilege but to
bind port 53, and sees a root with its program, the file of names and nothing else of the host.

dnsmasq(8) reads every file of a `--hostsdir`, and each again when it changes. `--domain-needed` keeps names without a
dot from going to servers elsewhere.
"""

from __future__ import annotations

import os
import sys
import time
from _socket import inet_aton
from contextlib import suppress

from vmctl import trace
from vmctl.journal import Journal
from vmctl.light import signal
from vmctl.linux import filetree, processes, syscalls
from vmctl.linux.threads import in_thread
from vmctl.named import TYPE_CHECKING, NamedTuple
from vmctl.net import switch

if TYPE_CHECKING:
    from collections.abc import Sequence

UPSTREAM = "169.254.77.3"  # on the way out: the name servers of the host; see uplink.py
PROGRAMS = ("dnsmasq", "setpriv")
_RECORD = "server"  # in the folder of the network
_MARK = "VMCTL_NAMES"  # in the environment of the process: the folder of the network
_LINKED = ("/bin", "/sbin", "/lib", "/lib64")  # folders, or links into /usr
_DEVICES = ("null", "urandom")
_PORT = 53
_WAIT_S, _LOOK_S = 10.0, 0.001


class _User:
    """The user of an id, which is free again when the folder is gone: see vmctl.leases.User."""

    def __init__(self, folder: str) -> None:
        self.name, self.id, self.directory = "name server", os.urandom(4).hex(), folder
        self.journal = Journal(os.path.join(folder, "journal"))  # `end` does not need it


class _Server(NamedTuple):
    """What is recorded of a name server; without a pid it is being started."""

    pid: int | None
    start: int | None
    uid: int | None

    def __str__(self) -> str:
        return " ".join("-" if part is None else str(part) for part in self)


def missing() -> list[str]:
    """Return the programs that are not installed."""
    from vmctl.which import which

    return [program for program in PROGRAMS if which(program) is None]


def serve(
    folder: str, known: Sequence[str], address: str, servers: Sequence[str] = (UPSTREAM,), port: int = _PORT
) -> bool:
    """Have a name server run at an address of the switch, for the files in the folders `known`; the lock is held.

    It asks `servers` about names that it does not know.
    Returns whether there is one. Raises OSError if it cannot be started.
    """
    last = _read(folder)
    if last is not None and processes.alive(last.pid, last.start):
        return True
    if missing():
        return False
    end(folder)
    server = _Server(None, None, _take_uid(folder))
    _write(folder, server)
    log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        command = _command(address, len(known), server.uid, servers, port)
        pid = in_thread(lambda: _spawn(folder, known, command, log))
    finally:
        os.close(log)
    server = server._replace(pid=pid, start=processes.start_time(pid))
    _write(folder, server)
    _wait_for_its_port(server, address, port)
    return True


def runs(folder: str) -> bool:
    """Return whether the name server of a folder runs."""
    server = _read(folder)
    return server is not None and processes.alive(server.pid, server.start)


def uids() -> list[int]:
    """Return the users of all name servers of this switch, without those that have the user of vmctl."""
    place = os.path.join(switch.folder(), "names")
    servers = [_read(os.path.join(place, name)) for name in (os.listdir(place) if os.path.isdir(place) else ())]
    return [server.uid for server in servers if server and server.uid is not None]


def uid_of(folder: str) -> int | None:
    """Return the user of the name server of a folder; None if it has the user of vmctl, or does not exist."""
    server = _read(folder)
    return server and server.uid


def end(folder: str) -> None:
    """End the name server of a network, if it runs, and give back its user id; the caller has the lock."""
    server = _read(folder)
    if server is None:
        return
    if server.pid is None:  # a command was killed between the start and the record of it
        pid = _find(folder)
        server = server._replace(pid=pid, start=processes.start_time(pid) if pid else None)
    if server.pid is not None and processes.alive(server.pid, server.start):
        with suppress(OSError):
            os.killpg(server.pid, signal.SIGKILL)  # it leads a group, in which are its helpers for TCP
        processes.end(server.pid, server.start)
    if server.uid is not None:
        from vmctl import ids

        ids.give_back(folder, {"first": server.uid})
    os.unlink(os.path.join(folder, _RECORD))


def _wait_for_its_port(server: _Server, address: str, port: int) -> None:
    """Wait until a name server has its socket; from then on the kernel keeps the questions that come before it reads.

    One that comes earlier is refused, and a program takes that for the answer that there is no such name.
    """
    number = int.from_bytes(inet_aton(address), sys.byteorder)
    bound = f" {number:08X}:{port:04X} "  # proc(5), /proc/net/udp
    deadline_s = time.monotonic() + _WAIT_S
    with suppress(OSError):
        while processes.alive(server.pid, server.start) and time.monotonic() < deadline_s:
            with open(f"/proc/{server.pid}/net/udp", encoding="ascii") as file:
                if bound in file.read():
                    return
            time.sleep(_LOOK_S)


def _read(folder: str) -> _Server | None:
    try:
        with open(os.path.join(folder, _RECORD), encoding="utf-8") as file:
            parts = file.read().split()
    except FileNotFoundError:
        return None
    return _Server(*(None if part == "-" else int(part) for part in parts))


def _write(folder: str, server: _Server) -> None:
    filetree.write_atomic(os.path.join(folder, _RECORD), str(server))


def _find(folder: str) -> int | None:
    """Return the process that was started for a folder: its environment names it (proc(5), /proc/PID/environ)."""
    mark = os.fsencode(f"{_MARK}={folder}")
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                return int(name)
    return None


def _command(address: str, folders: int, uid: int | None, servers: Sequence[str], port: int) -> list[str]:
    from vmctl.which import which

    user = [] if uid is None else [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    only = [f"--{kind}=-all,+net_bind_service" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return [
        *(which("setpriv") or "setpriv", *user, *only, "--no-new-privs", which("dnsmasq") or "dnsmasq"),
        *("--conf-file=/dev/null", "--keep-in-foreground", "--user=", "--group=", "--pid-file="),
        *("--log-facility=/dev/null", "--no-resolv", "--no-poll", "--no-ident"),
        *("--no-hosts", *(f"--hostsdir=/known{number}" for number in range(folders))),
        *(f"--port={port}", *(f"--server={server}" for server in servers)),
        *(
            "--domain-needed",
            "--bogus-priv",
            f"--listen-address={address}",
            "--bind-interfaces",
            "--except-interface=lo",
        ),
    ]


def _spawn(folder: str, known: Sequence[str], command: list[str], log: int) -> int:
    """Start the program from this thread, which goes to where it is to be, and return its pid.

    A child is born in the namespaces and the root of the thread that spawns it.
    """
    traced, trace.on = trace.on, False  # the root that it gets has no equal in a few commands
    try:
        switch.enter()
        # with the first the root and the umask become this thread's (unshare(2)); with the second the child can signal
        # and trace nobody, which counts if it has the user of vmctl
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
        _enter_root(folder, known)
        null = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)
        actions = [null, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        if traced:
            trace.comment(f"the name server, in a root of its program and the names: {' '.join(command)}")
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", _MARK: folder}
        return os.posix_spawn(command[0], command, environment, file_actions=actions, setsid=True)
    finally:
        trace.on = traced


def _enter_root(folder: str, known: Sequence[str]) -> None:
    """Make a root in memory, in this thread's mount namespace, and enter it; the caller's own root stays."""
    os.umask(0o022)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    trees = [syscalls.open_tree(path, recursive=False) for path in known]
    syscalls.mount("tmpfs", folder, "tmpfs", syscalls.MS_NOSUID, "mode=755,size=64k")
    os.chdir(folder)
    for name in ("usr", "dev"):
        os.mkdir(name)
    for number, tree in enumerate(trees):
        os.mkdir(f"known{number}")
        syscalls.move_mount(tree, f"known{number}")
        os.close(tree)
    _bind("/usr")
    for path in _LINKED:
        if os.path.islink(path):
            os.symlink(os.readlink(path), path[1:])
        elif os.path.isdir(path):
            os.mkdir(path[1:])
            _bind(path)
    for device in _DEVICES:
        os.close(os.open(f"dev/{device}", os.O_CREAT | os.O_CLOEXEC, 0o644))
        _bind(f"/dev/{device}")
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _bind(path: str) -> None:
    syscalls.mount(path, path[1:], None, syscalls.MS_BIND | syscalls.MS_REC)


def _take_uid(folder: str) -> int | None:
    from vmctl import ids

    if not ids.exist():  # of an ordinary user with one id: the server is this user, without its privileges
        return None
    return ids.take(_User(folder))
