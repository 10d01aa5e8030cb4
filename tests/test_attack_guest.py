"""A QEMU that its guest has taken over: what it may be, see, signal and fill.

The attempts are made by a probe with the identity and the namespaces of a running QEMU, without its system call filter.
"""

import os
import signal
import socket
import stat
import subprocess

import pytest
from support import qemu_probe
from support.qemu_probe import as_qemu, read

from vmctl import engine, instance
from vmctl.workload import Workload

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to enter the namespaces of QEMU"),
]
QEMU = {"mode": "vm", "who": "root"}
GIB = 1024**3


@pytest.fixture(scope="module")
def guest(guest_root):
    """A running guest, and a second one that is its neighbour."""
    names = ("taken", "neighbour")
    for name, network in zip(names, ("bridge", "none"), strict=True):
        engine.up(Workload(name, "tiny", ("sleep", "100000"), network=network), "vm", wait=False)
    yield instance.load("taken")
    for name in names:
        engine.rm(name, force=True)


@pytest.fixture
def bystander():
    """A process of the host."""
    with subprocess.Popen(["sleep", "100002"]) as process:
        yield process
        process.kill()


def held(answers):
    """Check that no attempt got through, and return the reasons."""
    through = {name: answer for name, (result, answer) in answers.items() if result != "refused"}
    assert through == {}
    return {name: answer for name, (_, answer) in answers.items()}


def namespaces(pid):
    return {os.readlink(f"/proc/{pid}/ns/{name}") for name in qemu_probe.NAMESPACES}


@pytest.mark.attack("uses the rights with which QEMU runs: root, capabilities, programs with setuid", **QEMU)
def test_rights_of_qemu(guest):
    found = qemu_probe.status(guest.state.pid)
    uids = set(found["Uid"].split())
    assert len(uids) == 1
    assert uids == set(found["Gid"].split()) == set(found["Groups"].split())
    assert int(uids.pop()) > 65535
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    other = instance.load("neighbour").state.pid  # without a network
    assert qemu_probe.status(other)["Uid"] != found["Uid"]
    ours, taken, neighbour = (namespaces(pid) for pid in ("self", guest.state.pid, other))
    assert len(ours | taken | neighbour) == 3 * len(qemu_probe.NAMESPACES)


@pytest.mark.attack("reads files of the host, of other instances and of other images from a QEMU taken over", **QEMU)
def test_files_of_the_host(guest, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o644)
    other = instance.load("neighbour")
    layers = os.path.dirname(guest.state.own["shared"][0])
    paths = (
        *("/etc/shadow", "/etc/passwd", "/root/.bashrc", "/proc/1/root/etc/shadow", "/proc/1/environ", str(secret)),
        *(other.path(name) for name in ("seed.iso", "disk.img", "workload.json", "stdout.log", "ssh_key")),
        *(guest.path(name) for name in ("ssh_key", "ssh_host_key", "workload.json", "journal")),
        *(os.path.join(layers, name) for name in os.listdir(layers)[:3] if name not in str(guest.state.own["shared"])),
        *(f"/proc/{os.getpid()}/root{secret}", f"{guest.run_dir}/libvirt/etc/qemu.conf"),
    )
    held(as_qemu(guest.state.pid, {path: lambda path=path: read(path) for path in paths}))
    its_own = as_qemu(guest.state.pid, {path: lambda path=path: read(path) for path in (guest.path("disk.img"),)})
    assert [result for result, _ in its_own.values()] == ["got through"]  # the probe is where QEMU is


@pytest.mark.attack("changes files from a QEMU taken over: the host's, shared layers, its own programs", **QEMU)
def test_files_to_write(guest, tmp_path):
    tmp_path.chmod(0o777)
    shared = [os.path.realpath(path) for path in guest.state.own["shared"]]
    paths = (*guest.state.own["shared"], *shared, guest.path("seed.iso"), "/usr/bin/qemu-system-x86_64")
    attempts = {path: lambda path=path: os.open(path, os.O_WRONLY) for path in paths}
    for folder in ("/", "/tmp", "/dev", "/dev/shm", "/var/tmp", str(tmp_path), guest.directory, guest.run_dir):
        attempts[folder] = lambda folder=folder: os.open(f"{folder}/made", os.O_WRONLY | os.O_CREAT, 0o600)
    held(as_qemu(guest.state.pid, attempts))


@pytest.mark.attack("signals, traces and reads processes of the host from a QEMU taken over", **QEMU)
def test_processes_of_the_host(guest, bystander):
    victims = (1, os.getpid(), bystander.pid, instance.load("neighbour").state.pid)
    attempts = {}
    for pid in victims:
        attempts[f"kill {pid}"] = lambda pid=pid: os.kill(pid, signal.SIGCONT)
        if pid != os.getpid():  # a success would stop the tests
            attempts[f"trace {pid}"] = lambda pid=pid: qemu_probe.trace(pid)
        for name in ("mem", "environ", "cmdline", "status", "fd"):
            attempts[f"{name} {pid}"] = lambda pid=pid, name=name: read(f"/proc/{pid}/{name}")
    held(as_qemu(guest.state.pid, attempts))
    assert bystander.poll() is None
    (listed,) = as_qemu(
        guest.state.pid, {"list": lambda: [name for name in os.listdir("/proc") if name.isdigit()]}
    ).values()
    for pid in victims:
        assert repr(str(pid)) not in listed[1]


@pytest.mark.attack("opens devices of the host from a QEMU taken over: disks, memory, tap", **QEMU)
def test_devices_of_the_host(guest):
    block = os.stat("/").st_dev
    nodes = [f"/dev/{name}" for name in ("vda", "sda", "mem", "kmsg", "loop-control", "fuse", "net/tun", "vhost-net")]
    attempts = {path: lambda path=path: os.open(path, os.O_RDWR) for path in nodes}
    for folder in ("/", "/dev", os.path.dirname(guest.path("disk.img"))):
        attempts[f"mknod {folder}"] = lambda folder=folder: os.mknod(f"{folder}/d", 0o600 | stat.S_IFBLK, block)
    attempts["mount"] = lambda: qemu_probe.syscalls.mount("proc", "/proc", "proc")
    attempts["user namespace"] = lambda: qemu_probe.syscalls.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY))
    held(as_qemu(guest.state.pid, attempts))


@pytest.mark.attack("reaches the host's network from a QEMU taken over, and listens on the instances' network", **QEMU)
def test_network_of_the_host(guest, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0vmctl-test-of-the-host")
        abstract.listen()
        port = server.getsockname()[1]

        def loopback():
            return socket.create_connection(("127.0.0.1", port), timeout=2)

        def unix():
            socket.socket(socket.AF_UNIX).connect("\0vmctl-test-of-the-host")

        def packets():
            return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300)

        for pid in (guest.state.pid, instance.load("neighbour").state.pid):
            held(as_qemu(pid, {"loopback": loopback, "unix": unix, "packets": packets}))


@pytest.mark.attack("fills the host's disk from a QEMU taken over, and starts processes without end", **QEMU)
def test_limits_of_qemu(guest):
    def beyond():
        fd = os.open(guest.path("disk.img"), os.O_WRONLY)
        try:
            return os.pwrite(fd, b"x", GIB)  # its disk has exactly this size
        finally:
            os.close(fd)

    assert held(as_qemu(guest.state.pid, {"beyond": beyond})) == {"beyond": "File too large"}
    limits = qemu_probe.limits(guest.state.pid)
    assert limits["Max core file size"] == 0  # a core file would contain the guest's memory
    assert 0 < limits["Max processes"] < 300
