"""The paths of a guest's files: persistent ones in the instance's directory, sockets in its run directory."""

from __future__ import annotations

import os

from vmctl import paths
from vmctl.instances.folder import Home
from vmctl.linux import usernamespace

PORT_PREFIX = "org.vmctl."
ALIAS = "/run/vmctl-libvirt"  # an ordinary user's link to libvirt's root, in the namespaces of one QEMU
SOCKET_PATH_MAX = 107  # unix(7): sun_path has 108 bytes, one of them for the final zero


def disk(home: Home) -> str:
    """The writable disk, sparse."""
    return home.path("disk.img")


def seed(home: Home) -> str:
    """The cloud-init seed ISO."""
    return home.path("seed.iso")


def domain(home: Home) -> str:
    """The domain XML of the last start."""
    return home.path("domain.xml")


def marks(home: Home) -> str:
    """The marks that the guest's init reports."""
    return home.path("marks")


def mark_killed(directory: str, *, killed: bool) -> None:
    """Record in the directory of an instance whether vmctl killed the guest, which then reports no end. Raises OSError.

    The file exists from the preparation on, with a blank: on a full disk it could not be made.
    """
    fd = os.open(os.path.join(directory, "killed"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, b"k" if killed else b" ", 0)
    finally:
        os.close(fd)


def is_killed(home: Home) -> bool:
    """Return whether vmctl killed the guest; an empty file, of an earlier version, means so too."""
    try:
        with open(home.path("killed"), "rb") as file:
            return file.read(1) != b" "
    except FileNotFoundError:
        return False


def client_key(home: Home) -> str:
    """The private key to log in to the guest."""
    return home.path("ssh_key")


def host_key(home: Home) -> str:
    """The private host key of the guest's sshd."""
    return home.path("ssh_host_key")


def control(home: Home) -> str:
    """The FIFO for requests to the guest's init."""
    return os.path.join(home.run_dir, "control")


def fifo(home: Home, name: str) -> str:
    """The FIFO through which QEMU hands a stream of the guest to the recorder."""
    return os.path.join(home.run_dir, f"from-{name}")


def console(home: Home) -> str:
    """The FIFOs of the serial console: this path with `.in`, to the guest, and `.out`."""
    return os.path.join(home.run_dir, "console")


def stdin(home: Home) -> str:
    """The socket of an attached workload's standard input, in a folder in which libvirt can make it."""
    return os.path.join(libvirt_root(home), "stdin")


def agent(home: Home) -> str:
    """The socket at which the recorder takes commands for the guest's agent."""
    return os.path.join(home.run_dir, "agent")


def agent_port(home: Home) -> str:
    """The socket of QEMU's port to the guest's agent, in a folder in which libvirt can make it."""
    return os.path.join(libvirt_root(home), "agent")


def volume_socket(home: Home, number: int) -> str:
    """The socket of the file server of a volume."""
    return os.path.join(home.run_dir, f"volume{number}")


def volumes_root(home: Home) -> str:
    """The empty folder on which the root of a file server is mounted, in a mount namespace of that server."""
    return os.path.join(home.run_dir, "volumes")


def volumes_log(home: Home) -> str:
    """The first errors of the file servers."""
    return home.path("volumes.log")


def libvirt_root(home: Home) -> str:
    """The root of the embedded libvirt driver of this instance."""
    return os.path.join(home.run_dir, "libvirt")


def capabilities() -> str:
    """The folder of QEMU's capabilities, as libvirt has probed them; shared by all instances."""
    return os.path.join(paths.cache_root(), "libvirt-capabilities")


def qemu_root(home: Home) -> str:
    """The empty folder on which QEMU's root is mounted, in a mount namespace of QEMU."""
    return os.path.join(home.run_dir, "root")


def pid_file(home: Home) -> str:
    """The pid file of QEMU, which stays locked as long as QEMU runs."""
    return os.path.join(libvirt_root(home), "run", "qemu", f"{home.name}.pid")


def qemu_log(home: Home) -> str:
    """The log with QEMU's command line and standard error."""
    return os.path.join(libvirt_root(home), "log", "qemu", f"{home.name}.log")


def monitor(home: Home) -> str:
    """The socket of QEMU's monitor (virDomainDefGetShortName): the embedded driver starts one domain, number 1."""
    return os.path.join(libvirt_root(home), "lib/qemu", f"domain-1-{home.name[:20]}", "monitor.sock")


def longest_socket_path(name: str) -> str:
    """Return the longest socket path of a start: that of QEMU's monitor (virDomainDefGetShortName)."""
    root = os.path.join(paths.run_root(), "0" * 8, "libvirt") if usernamespace.is_host_root() else ALIAS
    return os.path.join(root, "lib/qemu", f"domain-1-{name[:20]}", "monitor.sock")
