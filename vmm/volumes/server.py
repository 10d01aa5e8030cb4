"""The file servers of a guest: one virtiofsd for each volume, confined to it.

A guest can send its file server anything, so that counts as hostile too. It runs in namespaces without anything of the
host but the volume and the libraries of the distribution: uid 0 of a user namespace, whose ids belong to the instance
alone, in its own mount, PID, network, IPC, UTS and cgroup namespaces. So it can neither make device nodes nor become a
user of the host. In the user namespace it has the rights of root over files, which the guest's users need.

The mount of the volume is id-mapped to that namespace (mount_setattr(2)): owners on disk are those in the guest, as in
a container. A read-only volume is a read-only mount; what the guest asks for does not matter.

It ends when QEMU closes the socket, also if QEMU is killed.
"""

from __future__ import annotations

import os
import resource
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, NoReturn

from vmctl import ids, trace, userns
from vmctl.errors import UnavailableError
from vmctl.instances.instance import Instance
from vmctl.light import signal
from vmctl.linux import commands, processes, syscalls, usernamespace
from vmctl.linux.cgroups import Cgroup
from vmctl.volumes import places, trees
from vmm import confinement, files, volumes

ROLE = "virtiofsd"  # in the journal and in footprints
NAMESPACES = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)
# of capabilities(7): what virtiofsd keeps, CAP_SYS_CHROOT to enter the volume, CAP_SETPCAP to drop the others
CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "SETFCAP": 31,
}
FILES = 1_000_000  # a descriptor for each file that the guest's kernel remembers (virtiofsd's default)
THREADS = 64
_PLAIN = syscalls.MS_NOSUID | syscalls.MS_NODEV


class _Server(NamedTuple):
    """What the child needs; computed before, because it can import nothing later."""

    root: str  # a folder of the host on which its root is mounted
    tree: int  # the volume as a detached mount
    listener: int
    log: int
    cgroup: Cgroup
    joins: bool  # it has to join the cgroup by itself (v1)
    capabilities: range


def mapping(first_id: int | None) -> str:
    """Return the ids of the servers of an instance, next to QEMU's, which is the first of the range.

    An ordinary user has only one range: there the ids are those of the user's namespace.
    """
    return usernamespace.same_ids() if first_id is None else f"0 {first_id + 1} {ids.COUNT - 1}"


def start(inst: Instance, first_id: int | None) -> None:
    """Start the file server of each volume; they are in the journal. Raises UnavailableError, OSError."""
    os.makedirs(files.volumes_root(inst), mode=0o700, exist_ok=True)
    with _log(inst) as log, _namespace(first_id) as namespace:
        for number, volume in enumerate(places.found(inst.work, inst.directory)):
            tree = trees.made(volume, namespace, inst.state.warnings)
            try:
                with _listening(files.volume_socket(inst, number)) as listener:
                    _start(inst, mapping(first_id), tree, listener.fileno(), log)
            finally:
                os.close(tree)


@contextmanager
def _log(inst: Instance) -> Iterator[int]:
    """Yield a descriptor for errors: the recorder keeps the first ones."""
    fd = os.open(files.fifo(inst, "volumes"), os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _namespace(first_id: int | None) -> Iterator[int | None]:
    if first_id is None:
        yield None
        return
    with userns.namespace_with(mapping(first_id)) as namespace:
        yield namespace


@contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    with suppress(FileNotFoundError):  # of an earlier start
        os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1)
        yield listener


def _start(inst: Instance, own_ids: str, tree: int, listener: int, log: int) -> None:
    cgroup = Cgroup(inst.cgroup)
    with ExitStack() as opened:
        report, theirs = os.pipe()
        opened.callback(os.close, report)
        group = cgroup.open_for_clone()
        if group is not None:
            opened.callback(os.close, group)
        last = confinement.capabilities()
        server = _Server(files.volumes_root(inst), tree, listener, log, cgroup, group is None, last)
        later = syscalls.CLONE_NEWCGROUP if server.joins else 0
        barrier = userns.MappingBarrier(own_ids)
        try:
            pid = syscalls.clone3(NAMESPACES & ~later, exit_signal=signal.SIGCHLD, cgroup_fd=group)
            if pid == 0:
                _child(server, barrier, theirs)
        finally:
            os.close(theirs)
        try:
            inst.journal.record_process(pid, processes.start_time(pid), ROLE)
            _limit(pid)
            barrier.release(pid)
        except BaseException:
            processes.send(pid, processes.start_time(pid), signal.SIGKILL)
            raise
        if trace.on:
            trace.step(commands.join(volumes.command(listener)), f"process {pid}, in separate namespaces")
        if reason := _read(report):
            raise UnavailableError(
                f"the file server of a volume cannot be started: {reason}",
                hint="`vmctl doctor` shows what is missing; --mode container needs no file server",
            )


def _limit(pid: int) -> None:
    """Set limits from outside: only the host's root may raise one, and the process is not that any more."""
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    for number in (FILES, most):
        with suppress(OSError, ValueError):  # a host that allows fewer
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, number))
            break
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))  # a part of the guest's memory
    if usernamespace.is_host_root():  # counted per user: those of an ordinary user count with all others
        resource.prlimit(pid, resource.RLIMIT_NPROC, (THREADS, THREADS))


def _read(report: int) -> str:
    """Return what the child reports before it executes the program, which closes its end."""
    found = b""
    while part := os.read(report, 4096):
        found += part
    return found.decode(errors="replace")


def _child(server: _Server, barrier: userns.MappingBarrier, report: int) -> NoReturn:
    try:
        os.setsid()
        if server.joins:  # before the namespace: the root of that is where its maker is
            server.cgroup.join()
            syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        barrier.wait()
        _enter_root(server)
        _execute(server)
    except BaseException as error:  # this copy of vmctl must not continue
        os.write(report, str(error).encode(errors="replace"))
    finally:
        os._exit(125)


def _enter_root(server: _Server) -> None:
    """Make a root with the libraries, /proc of this process, and the volume, and enter it."""
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    # a file system of a user namespace has files of its ids only, so its root needs an owner
    syscalls.mount("tmpfs", server.root, "tmpfs", _PLAIN, "mode=755,size=64k,uid=0,gid=0")
    os.chdir(server.root)  # by a path that only the host's root can follow, which this process is until here
    os.setresgid(0, 0, 0)
    os.setgroups([])
    os.setresuid(0, 0, 0)
    os.umask(0)
    for path in confinement.PROGRAM_FOLDERS:
        confinement.show(path, ".", syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NODEV)
    _attach(server.tree)
    os.mkdir("proc", 0o755)
    syscalls.mount("proc", "proc", "proc", _PLAIN | syscalls.MS_NOEXEC)
    syscalls.mount(None, ".", None, syscalls.MS_REMOUNT | syscalls.MS_RDONLY | _PLAIN)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _attach(tree: int) -> None:
    """Attach the volume: a folder as /volume, a single file as the only one in /volume."""
    os.mkdir("volume", 0o755)
    target = "volume"
    if not stat.S_ISDIR(os.fstat(tree).st_mode):
        target = "volume/file"
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    syscalls.move_mount(tree, target)


def _execute(server: _Server) -> NoReturn:
    for number in set(server.capabilities) - set(CAPABILITIES.values()):
        syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.reset_signals()
    null, unused = os.pipe()  # there is no /dev
    os.close(unused)
    for number, fd in enumerate((null, server.log, server.log)):
        os.dup2(fd, number)
    syscalls.close_on_exec_from(3)
    os.set_inheritable(server.listener, True)
    words = volumes.command(server.listener)
    os.execve(words[0], words, {})
