"""Start a container in the network namespace of another one: the `container:NAME` of `network`.

setns(2) needs rights in the user namespace that owns the network namespace. The new process has none: it is in another
user namespace. So a process of ours joins the network namespace first, and clones the container from there,
as a child of its own parent. That process ends, because an ordinary user could not go back to the host's network.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress

from containers.launch import Launch
from vmctl import neighbours
from vmctl.errors import StateError
from vmctl.instances.instance import Instance
from vmctl.linux import processes, syscalls, usernamespace
from vmctl.named import TYPE_CHECKING

if TYPE_CHECKING:
    from vmctl.spec.workload import File

_SHARED = ("/etc/hosts", "/etc/resolv.conf")
_MOST_BYTES = 1 << 16
_LAST_GROUP = (1 << 31) - 1  # icmp(7)
# what its owner has decided for its own ids only, of which the new container has others
_FOR_ALL = (("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 {last}"))


def prepare(inst: Instance, launch: Launch) -> Launch:
    """Return the launch in the network namespace of the other container, with its names. Raises VmctlError."""
    other = neighbours.find(inst.work)
    assert other.state.pid is not None  # it runs
    folder = os.open(f"/proc/{other.state.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        joins = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        if not processes.alive(other.state.pid, other.state.pid_start):  # else it may be of another process
            os.close(joins)
            raise StateError(
                f"network: {inst.work.network}: {other.name} has ended", hint=f"`vmctl start {other.name}`"
            )
        provided = tuple(_same(folder, file) if file.path in _SHARED else file for file in launch.provided)
    finally:
        os.close(folder)
    inst.state.address, inst.state.mac, inst.state.links = other.state.address, None, {}
    return launch._replace(joins=joins, provided=provided)


def _same(folder: int, file: File) -> File:
    """Return a file with the content that it has in the other container, if that can be read.

    The other container is hostile: its links lead into its root, and only an ordinary file is read.
    """
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with ExitStack() as stack, suppress(OSError):
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        stack.callback(os.close, root)
        fd = syscalls.openat2(file.path, flags, 0, resolve, root)
        stack.callback(os.close, fd)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return file._replace(content=os.read(fd, _MOST_BYTES).decode(errors="replace"))
    return file


def clone3(joins: int, flags: int, cgroup_fd: int | None) -> int:
    """Do what `syscalls.clone3` does, from inside of a network namespace. Raises OSError."""
    read, write = os.pipe()
    helper = os.fork()
    if helper == 0:
        pid = _from_inside(joins, flags, cgroup_fd, write)
        if pid == 0:  # the container
            os.close(read)
            os.close(write)
            return 0
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read()
    os.waitpid(helper, 0)
    pid = int(text or -errno.ESRCH)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid), "the network namespace of the other container")
    return pid


def _from_inside(joins: int, flags: int, cgroup_fd: int | None, write: int) -> int:
    """Join the namespace and clone; write the pid, or the negative number of an error. Return 0 in the new process."""
    try:
        syscalls.setns(joins, syscalls.CLONE_NEWNET)
        for name, value in _FOR_ALL:
            with suppress(OSError), open(f"/proc/sys/net/ipv4/{name}", "w", encoding="ascii") as file:
                file.write(value.format(last=min(usernamespace.ids() - 1, _LAST_GROUP)))
        pid = syscalls.clone3(flags | syscalls.CLONE_PARENT, exit_signal=0, cgroup_fd=cgroup_fd)
        if pid:
            os.write(write, b"%d" % pid)
        return pid
    except OSError as error:
        os.write(write, b"-%d" % (error.errno or errno.EIO))
    except BaseException:
        os.write(write, b"-%d" % errno.EINTR)
    os._exit(0)
