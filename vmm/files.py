"""Where the files of a guest are: lasting ones in the instance's directory, sockets in its run directory."""

from __future__ import annotations

import os

from vmctl import paths
from vmctl.instance import Instance

PORT_PREFIX = "org.vmctl."
SOCKET_PATH_MAX = 107  # unix(7): sun_path has 108 bytes, one of them the final zero


def disk(inst: Instance) -> str:
    """The writable disk, sparse."""
    return inst.path("disk.img")


def seed(inst: Instance) -> str:
    """The cloud-init seed ISO."""
    return inst.path("seed.iso")


def domain(inst: Instance) -> str:
    """The domain XML of the last start."""
    return inst.path("domain.xml")


def marks(inst: Instance) -> str:
    """What the guest's init reports of itself."""
    return inst.path("marks")


def killed(inst: Instance) -> str:
    """There when the guest was ended from outside: it could not report that itself."""
    return inst.path("killed")


def client_key(inst: Instance) -> str:
    """The private key that opens the guest's sshd."""
    return inst.path("ssh_key")


def host_key(inst: Instance) -> str:
    """The private key that the guest's sshd proves itself with."""
    return inst.path("ssh_host_key")


def control(inst: Instance) -> str:
    """The FIFO for orders to the guest's init."""
    return os.path.join(inst.run_dir, "control")


def order(inst: Instance, line: str) -> None:
    """Write a line to the guest's control port, without waiting for anybody to read it. Raises OSError."""
    fd = os.open(control(inst), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


def stdin(inst: Instance) -> str:
    """The socket of an attached workload's standard input."""
    return os.path.join(inst.run_dir, "stdin")


def libvirt_root(inst: Instance) -> str:
    """The root of the embedded libvirt driver of this instance."""
    return os.path.join(inst.run_dir, "libvirt")


def pid_file(inst: Instance) -> str:
    """The file that libvirt locks in QEMU's name as long as QEMU lives."""
    return os.path.join(libvirt_root(inst), "run", "qemu", f"{inst.name}.pid")


def qemu_log(inst: Instance) -> str:
    """What QEMU said on its standard error, and its command line."""
    return os.path.join(libvirt_root(inst), "log", "qemu", f"{inst.name}.log")


def longest_socket_path(name: str) -> str:
    """Return the longest path of a socket that a start will make: QEMU's monitor (virDomainDefGetShortName)."""
    return os.path.join(paths.run_root(), "0" * 8, "libvirt/lib/qemu", f"domain-1-{name[:20]}", "monitor.sock")
