"""What this kernel lets us do, found by trying it in a child: all that the child made ends with its namespaces.

An ordinary user tries it in a user namespace, as instances are started.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from vmctl.linux import kernelfile, netlink, nftables, syscalls, taps

NAMESPACES = {
    "mnt": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "net": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "user": syscalls.CLONE_NEWUSER,
}
_ALLOW_ALL = bytes.fromhex("060000000000ff7f")  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW
_KVM_GET_API_VERSION = 0xAE00


def failure_of(action: Callable[[], None]) -> OSError | None:
    """Run `action` in a child; return the OSError it raises, or None if it succeeds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _report(action, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        number, _, text = file.read().decode().partition(" ")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if number:
        return OSError(int(number), text)
    return None if code == 0 else OSError(errno.EPERM, f"the attempt exited with code {code}")


def refused_namespaces() -> dict[str, OSError]:
    """Return the kinds of namespace that cannot be created, each with the reason."""
    results = {name: failure_of(lambda flag=flag: syscalls.unshare(flag)) for name, flag in NAMESPACES.items()}  # type: ignore[misc]
    return {name: error for name, error in results.items() if error}


def mount_overlay() -> None:
    """Mount an overlay on a tmpfs. Raises OSError."""
    _private_tmp()
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"/tmp/{name}")
    data = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
    syscalls.mount("overlay", "/tmp/merged", "overlay", 0, data)


def mount_erofs() -> None:
    """Try to mount a file that is not an EROFS image; the error shows what the kernel supports. Raises OSError.

    ENODEV: the kernel has no EROFS. ENOTBLK: it mounts EROFS from a block device only, which may be a loop device.
    Any other error: it mounts EROFS directly from a file.
    """
    source = os.path.abspath(__file__)
    _private_tmp()
    syscalls.mount(source, "/tmp", "erofs", syscalls.MS_RDONLY)


def filter_system_calls() -> None:
    """Install a seccomp filter that allows every system call. Raises OSError."""
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_filter(_ALLOW_ALL)


def build_switch() -> None:
    """Create a bridge with a veth pair on it, and a filter of its frames. Raises OSError."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    mac = "52:54:00:4d:00:01"
    netlink.apply(netlink.new_bridge("bridge0", 7, mac), netlink.new_veth("port0", 8, 7, "eth0", mac, os.getpid()))
    filters = netlink.Connection(netlink.NETLINK_NETFILTER)
    filters.apply(nftables.new_table("table0"), nftables.new_chain("table0", "chain0", "prerouting", "drop"))
    filters.close()


def make_tap() -> None:
    """Create a tap device like that of a guest. Raises OSError."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    taps.new_tap("tap0", 9)


def ask_kvm() -> None:
    """Open /dev/kvm and query the API version. Raises OSError."""
    import fcntl

    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, _KVM_GET_API_VERSION)


def _private_tmp() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("tmpfs", "/tmp", "tmpfs")


def enter_user_namespace() -> None:
    """Become uid 0 of a new user and mount namespace, in which only this user is mapped. Raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    kernelfile.write("/proc/self/setgroups", "deny")
    kernelfile.write("/proc/self/uid_map", f"0 {uid} 1")
    kernelfile.write("/proc/self/gid_map", f"0 {gid} 1")
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def _report(action: Callable[[], None], writer: int) -> None:
    """Run the action in the child and write its error to the pipe. Exits without the parent's atexit handlers."""
    code = 1
    try:
        if os.geteuid() != 0 and action is not enter_user_namespace:
            enter_user_namespace()
        action()
        code = 0
    except OSError as error:
        os.write(writer, f"{error.errno or errno.EPERM} {error.strerror or error}".encode())
    finally:
        os._exit(code)
