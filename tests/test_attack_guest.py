"""A QEMU that its guest has taken over: what it may be, see, signal and fill.

The attempts are made by a probe with the identity and the namespaces of a running QEMU, without its system call filter.
"""

import os
import re
import signal
import socket
import stat
import subprocess

import pytest
from support import qemu_probe
from support.qemu_probe import as_qemu, read

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to enter the namespaces of QEMU"),
]
GIB = 1024**3


class Guest:
    """A running guest: what the host knows of its QEMU."""

    def __init__(self, caller, name):
        found = caller.inspect(name)
        self.pid, self.directory = found["pid"], found["directory"]
        with open(f"/proc/{self.pid}/cmdline", encoding="utf-8") as file:
            words = set(re.findall(r"(/[^\0\",]+)", file.read()))
        self.layers = sorted(word for word in words if word.endswith(".erofs"))
        self.others = sorted(word for word in words if word.endswith(".cpio") or "/vmlinu" in word)

    def path(self, name):
        return os.path.join(self.directory, name)


@pytest.fixture(scope="module")
def guests(caller, tmp_path_factory):
    """Two running guests: one that has taken over its QEMU, and its neighbour, which has no network."""
    names = ("taken", "neighbour")
    for name, network in zip(names, ("bridge", "none"), strict=True):
        text = f"name: {name}\nimage: tiny\ncommand: [sleep, '100000']\nnetwork: {network}\n"
        caller.ok("up", "--quiet", "--no-wait", "--mode", "vm", caller.write(f"{name}.yaml", text))
    yield [Guest(caller, name) for name in names]
    caller.vmctl("rm", "-f", *names)


@pytest.fixture
def guest(guests):
    return guests[0]


@pytest.fixture
def neighbour(guests):
    return guests[1]


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


@pytest.mark.attack("uses the rights with which QEMU runs: root, capabilities, programs with setuid", mode="vm")
def test_rights_of_qemu(guest, neighbour):
    found = qemu_probe.status(guest.pid)
    uids = set(found["Uid"].split())
    assert len(uids) == 1
    assert uids == set(found["Gid"].split()) == set(found["Groups"].split())
    assert int(uids.pop()) > 65535
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert qemu_probe.status(neighbour.pid)["Uid"] != found["Uid"]
    ours, taken, others = (namespaces(pid) for pid in ("self", guest.pid, neighbour.pid))
    assert len(ours | taken | others) == 3 * len(qemu_probe.NAMESPACES)


@pytest.mark.attack("reads files of the host, of other instances and of other images from a QEMU taken over", mode="vm")
def test_files_of_the_host(guest, neighbour, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o644)
    layers = os.path.dirname(guest.layers[0])
    paths = (
        *("/etc/shadow", "/etc/passwd", "/root/.bashrc", "/proc/1/root/etc/shadow", "/proc/1/environ", str(secret)),
        *(neighbour.path(name) for name in ("seed.iso", "disk.img", "workload.json", "stdout.log", "ssh_key")),
        *(guest.path(name) for name in ("ssh_key", "ssh_host_key", "workload.json", "journal")),
        *(os.path.join(layers, name) for name in os.listdir(layers) if name not in str(guest.layers)),
        *(f"/proc/{os.getpid()}/root{secret}", f"/proc/{neighbour.pid}/root{neighbour.path('disk.img')}"),
    )
    held(as_qemu(guest.pid, {path: lambda path=path: read(path) for path in paths}))
    its_own = as_qemu(guest.pid, {path: lambda path=path: read(path) for path in (guest.path("disk.img"),)})
    assert [result for result, _ in its_own.values()] == ["got through"]  # the probe is where QEMU is


@pytest.mark.attack("changes files from a QEMU taken over: the host's, shared layers, its own programs", mode="vm")
def test_files_to_write(guest, tmp_path):
    tmp_path.chmod(0o777)
    shared = [*guest.layers, *guest.others]
    paths = (*shared, *map(os.path.realpath, shared), guest.path("seed.iso"), "/usr/bin/qemu-system-x86_64")
    attempts = {path: lambda path=path: os.open(path, os.O_WRONLY) for path in paths}
    for folder in ("/", "/tmp", "/dev", "/dev/shm", "/var/tmp", str(tmp_path), guest.directory):
        attempts[folder] = lambda folder=folder: os.open(f"{folder}/made", os.O_WRONLY | os.O_CREAT, 0o600)
    held(as_qemu(guest.pid, attempts))


@pytest.mark.attack("signals, traces and reads processes of the host from a QEMU taken over", mode="vm")
def test_processes_of_the_host(guest, neighbour, bystander):
    victims = (1, os.getpid(), bystander.pid, neighbour.pid)
    attempts = {}
    for pid in victims:
        attempts[f"kill {pid}"] = lambda pid=pid: os.kill(pid, signal.SIGCONT)
        if pid != os.getpid():  # a success would stop the tests
            attempts[f"trace {pid}"] = lambda pid=pid: qemu_probe.trace(pid)
        for name in ("mem", "environ", "cmdline", "status", "fd"):
            attempts[f"{name} {pid}"] = lambda pid=pid, name=name: read(f"/proc/{pid}/{name}")
    held(as_qemu(guest.pid, attempts))
    assert bystander.poll() is None
    (listed,) = as_qemu(guest.pid, {"list": lambda: [name for name in os.listdir("/proc") if name.isdigit()]}).values()
    for pid in victims:
        assert repr(str(pid)) not in listed[1]


@pytest.mark.attack("opens devices of the host from a QEMU taken over: disks, memory, tap", mode="vm")
def test_devices_of_the_host(guest):
    block = os.stat("/").st_dev
    nodes = [f"/dev/{name}" for name in ("vda", "sda", "mem", "kmsg", "loop-control", "fuse", "net/tun", "vhost-net")]
    attempts = {path: lambda path=path: os.open(path, os.O_RDWR) for path in nodes}
    for folder in ("/", "/dev", os.path.dirname(guest.path("disk.img"))):
        attempts[f"mknod {folder}"] = lambda folder=folder: os.mknod(f"{folder}/d", 0o600 | stat.S_IFBLK, block)
    attempts["mount"] = lambda: qemu_probe.syscalls.mount("proc", "/proc", "proc")
    attempts["user namespace"] = lambda: qemu_probe.syscalls.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY))
    held(as_qemu(guest.pid, attempts))


@pytest.mark.attack(
    "reaches the host's network from a QEMU taken over, and listens on the instances' network", mode="vm"
)
def test_network_of_the_host(guest, neighbour):
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

        for pid in (guest.pid, neighbour.pid):
            held(as_qemu(pid, {"loopback": loopback, "unix": unix, "packets": packets}))


@pytest.mark.attack("fills the host's disk from a QEMU taken over, and starts processes without end", mode="vm")
def test_limits_of_qemu(guest):
    def beyond():
        fd = os.open(guest.path("disk.img"), os.O_WRONLY)
        try:
            return os.pwrite(fd, b"x", GIB)  # its disk has exactly this size
        finally:
            os.close(fd)

    assert held(as_qemu(guest.pid, {"beyond": beyond})) == {"beyond": "File too large"}
    limits = qemu_probe.limits(guest.pid)
    assert limits["Max core file size"] == 0  # a core file would contain the guest's memory
    assert 0 < limits["Max processes"] < 300
