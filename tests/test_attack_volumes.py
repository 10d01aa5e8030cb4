"""Through a volume to the host, to other instances, and out of the file server of a guest."""

import errno
import os
import re
import secrets
import signal
import socket
import stat
import struct
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest
from support import qemu_probe
from support.attack_table import callers
from support.attacks import Caller, Cell
from support.commands import wait_for
from support.vhost_user import ROOT, SETATTR, Driver, EndedError

from vmctl import engine, footprint
from vmctl.instances import instance
from vmctl.spec.workload import Volume, Workload
from vmctl.volumes import store
from vmm import files, volumes
from vmm.backend import VmBackend
from vmm.volumes import server

pytestmark = pytest.mark.timeout(900)
IN_GUEST = {"mode": "vm", "who": "root"}
SHARED = "shared"


@pytest.fixture(scope="module")
def shared(caller):
    """A folder of the host that a workload gets."""
    folder = os.path.join(caller.folder, f"shared-{secrets.token_hex(4)}")
    os.mkdir(folder)
    os.chmod(folder, 0o755)
    os.chown(folder, caller.uid, caller.uid)
    return folder


@pytest.fixture(scope="module")
def box(caller, mode, shared):
    """An instance with this folder, and with the volume `shared`, whose root is the attacker."""
    box = Cell(caller, mode, volumes=[f"{shared}:/s", f"{SHARED}:/n", f"{shared}:/r:ro"], network="none")
    yield box
    box.end()
    caller.vmctl("volume", "rm", "-f", SHARED)


UP = "/".join([".."] * 12)


def content(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.attack("reads and writes files of the host through links that it makes in a volume")
def test_links_to_the_host(box, caller, canary):
    script = f"""
    for folder in /s /n; do
        cd $folder
        ln -s {canary.path} file; ln -s {UP}{canary.path} up; ln -s / root; ln -s /proc/1/root magic; ln -s {UP} above
        cat file up root{canary.path} magic{canary.path} above{canary.path}
        for name in file up root{canary.path} magic{canary.path}; do echo changed >$name; done
        chmod 777 file up; ln file hard; mv file moved; cat hard moved
    done"""
    canary.check(box.shell(script))
    canary.check(caller.ok("volume", "ls"), caller.ok("volume", "inspect", SHARED))


@pytest.mark.attack("leaves links to the host in a volume, for its removal or for the next instance to follow")
@callers("root")
def test_links_for_the_removal(caller, mode, canary):
    inside = f"rm -rf /n/*; ln -s {os.path.dirname(canary.path)} /n/folder; ln -s {canary.path} /n/file; ln -s / /n/new"
    run = ("run", "--mode", mode, "--network", "none", "-v", "left:/n")
    caller.ok(*run, "tiny", "--", "sh", "-c", inside)
    nested = ("-v", "other:/n/folder", "-v", "other:/n/new/etc")  # mount points that the links choose
    canary.check(caller.vmctl(*run, *nested, "tiny", "--", "sh", "-c", f"ls /n/folder; cat {canary.path}"))
    caller.ok("volume", "rm", "left")
    caller.vmctl("volume", "rm", "other")
    canary.check()


@pytest.mark.attack("makes a setuid program in a volume, which a user of the host or another instance executes")
@callers("root")
def test_setuid_in_a_volume(box, caller, mode):
    made = box.shell("cp $(readlink -f /bin/busybox) /n/id && chown 0:0 /n/id && chmod 6755 /n/id && chmod 777 /n")
    assert made.code == 0, made
    path = os.path.join(store.data(SHARED), "id")
    assert os.stat(path).st_mode & stat.S_ISUID  # it was made
    with pytest.raises(PermissionError):  # a user of the host does not reach it
        subprocess.run([path, "id"], user=65534, group=65534, extra_groups=[], cwd="/")
    other = "container" if mode == "vm" else "vm"
    for where in (mode, other):  # and in no instance does it give rights
        words = ("--mode", where, "--network", "none", "-u", "1000", "-v", f"{SHARED}:/n", "tiny", "--", "/n/id", "-u")
        seen = caller.vmctl("run", *words)
        assert seen.out == "1000\n", seen


@pytest.mark.attack("makes device nodes of the host's disks and memory in a volume")
def test_device_nodes(box, shared):
    disk = os.stat("/").st_dev
    script = f"""
    for folder in /s /n; do
        cd $folder
        mknod disk b {os.major(disk)} {os.minor(disk)} && echo made
        mknod mem c 1 1 && echo made
        mknod null c 1 3 && echo made
    done; ls -l /s /n"""
    seen = box.shell(script)
    assert "made" not in seen.out, seen
    assert not any(stat.S_ISBLK(os.lstat(os.path.join(shared, name)).st_mode) for name in os.listdir(shared))


@pytest.mark.attack("writes to a read-only volume, after it has mounted it again as writable")
def test_read_only_volume(box, shared):
    again = "mount -o remount,rw /r; mount -o remount,bind,rw /r"
    seen = box.shell(f"{again}; touch /r/a; mkdir /r/b; echo x >/r/c; rm -r /r/*")
    assert seen.code != 0
    assert not {"a", "b", "c"} & set(os.listdir(shared))


# A guest that speaks to its file server itself


@contextmanager
def served(guest_root, folder, *, read_only=False):
    """Yield the socket of a file server as a start makes it, which no QEMU has."""
    name = f"served-{secrets.token_hex(3)}"
    work = Workload(name, "tiny", ("true",), volumes=(Volume(folder, "/v", read_only),), network="none")
    inst = engine.create(work, VmBackend())
    try:
        with inst.locked():
            VmBackend().prepare(inst).close()
            inst.save()
        yield files.volume_socket(inst, 0)
    finally:
        engine.rm(name, force=True)


@contextmanager
def by_hand(folder):
    """Yield the socket of a virtiofsd of root, as libvirt would start it, without our confinement."""
    path = os.path.join(os.path.dirname(folder), f"hand-{secrets.token_hex(3)}")
    words = [volumes.PROGRAM, f"--socket-path={path}", "-f", "-o", f"source={folder},cache=auto,xattr"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: os.path.exists(path))
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@pytest.fixture
def place(tmp_path):
    """A folder that is served, next to a secret."""
    (tmp_path / "beside").write_text("of the host")
    (tmp_path / "served").mkdir()
    (tmp_path / "served").chmod(0o777)
    (tmp_path / "served/file").write_text("inside")
    return str(tmp_path / "served")


@pytest.mark.attack("makes device nodes and files of the host's users by its own FUSE requests", **IN_GUEST)
def test_requests_that_make_nodes(guest_root, place):
    device = os.stat("/").st_dev
    with by_hand(place) as path, Driver(path) as driver:  # what this defends against
        assert driver.mknod(ROOT, b"by-hand", stat.S_IFBLK | 0o666, device) == 0
    assert stat.S_ISBLK(os.stat(f"{place}/by-hand").st_mode)
    with served(guest_root, place) as path, Driver(path) as driver:
        for kind in (stat.S_IFBLK, stat.S_IFCHR):
            assert driver.mknod(ROOT, b"device", kind | 0o666, device) == errno.EPERM
        for number in (65535, 1 << 20, 0x70000000, 0xFFFFFFFE):  # ids that no user of the guest may have
            assert driver.mknod(ROOT, b"foreign", stat.S_IFREG | 0o600, ids=(number, number)) != 0
        assert driver.mknod(ROOT, b"mine", stat.S_IFREG | 0o600, ids=(1000, 1000)) == 0
    assert os.stat(f"{place}/mine").st_uid == 1000
    assert sorted(os.listdir(place)) == ["by-hand", "file", "mine"]


@pytest.mark.attack("asks its file server for files next to the volume, by names, links and numbers", **IN_GUEST)
def test_requests_for_other_files(guest_root, place):
    secret = os.path.join(os.path.dirname(place), "beside")
    names = (b"..", b"../beside", b"../../../../../../etc/shadow", b"/etc/shadow", b"a/../../beside", b"file/..", b"")
    seen = []
    with served(guest_root, place) as path, Driver(path) as driver:
        root = driver.inode(ROOT)
        for name in names:
            code, node, inode = driver.lookup(ROOT, name)
            assert code != 0 or inode == root, name
            if code == 0:
                seen.append(driver.listing(node)[1])
            assert driver.mknod(ROOT, name, stat.S_IFREG | 0o600) != 0
            assert driver.rename(ROOT, b"file", ROOT, name) != 0
        for number, target in enumerate((secret, "/etc/shadow", "../beside", "/proc/1/root/etc/shadow", "/", "..")):
            name = b"link%d" % number
            assert driver.symlink(ROOT, name, os.fsencode(target)) == 0
            code, node, _ = driver.lookup(ROOT, name)
            assert code == 0
            seen += [driver.read(node), driver.listing(node), driver.write(node, b"changed")]
            seen.append(driver.lookup(node, b"beside"))
            assert driver.ask(SETATTR, node, _chmod(0o777))[0] != 0
        for node in (0, 2, 3, 1 << 20, (1 << 64) - 1):  # nodes and handles that it never got
            seen += [driver.read(node), driver.listing(node), driver.lookup(node, b"beside")]
            seen += [driver.read_handle(ROOT, handle) for handle in (0, 1, 5, 1 << 40)]
    assert "of the host" not in str(seen)
    assert "root:" not in str(seen)
    assert content(secret) == "of the host"
    assert sorted(os.listdir(os.path.dirname(place))) == ["beside", "served"]


def _chmod(mode):
    return struct.pack("<IIQQQQQQIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, mode, 0, 0, 0, 0)


@pytest.mark.attack("writes to a read-only volume by its own FUSE requests", **IN_GUEST)
def test_requests_that_write(guest_root, place):
    with served(guest_root, place, read_only=True) as path, Driver(path) as driver:
        code, node, _ = driver.lookup(ROOT, b"file")
        assert code == 0
        assert driver.read(node)[1] == b"inside"
        assert driver.write(node, b"changed") == errno.EROFS
        assert driver.mknod(ROOT, b"made", stat.S_IFREG | 0o600) == errno.EROFS
        assert driver.rename(ROOT, b"file", ROOT, b"moved") == errno.EROFS
        assert driver.ask(SETATTR, node, _chmod(0o777))[0] == errno.EROFS
    assert os.listdir(place) == ["file"]
    assert content(f"{place}/file") == "inside"


@pytest.mark.attack("ends the file servers of others, or its guest, by requests that are not valid", **IN_GUEST)
def test_requests_that_are_none(guest_root, place):
    with served(guest_root, place) as other, Driver(other) as neighbour:
        with served(guest_root, place) as path, Driver(path) as driver, suppress(EndedError):  # only its own one
            for opcode in (0, 1, 5, 6, 16, 44, 4096, 0xFFFFFFFF):
                for body, length in ((b"x" * 500, None), (b"x" * 500, 40), (b"", 1 << 31), (b"", 0)):
                    driver.ask(opcode, ROOT, body, length=length)
        assert neighbour.lookup(ROOT, b"file")[0] == 0
    assert os.listdir(place) == ["file"]


# A file server that a guest has taken over


@pytest.fixture(scope="module")
def guest(guest_root, tmp_path_factory):
    """A guest with a volume, and the pid of its file server."""
    folder = tmp_path_factory.mktemp("volume")
    cell = Cell(Caller(str(tmp_path_factory.mktemp("caller"))), "vm", volumes=[f"{folder}:/v"], network="none")
    inst = instance.load(cell.name)
    (pid,) = footprint.helpers(inst.journal)[server.ROLE]
    yield inst, pid
    cell.end()


def held(answers):
    through = {name: answer for name, (result, answer) in answers.items() if result != "refused"}
    assert through == {}


@pytest.mark.attack("uses the rights with which its file server runs: root, capabilities, namespaces", **IN_GUEST)
def test_rights_of_the_file_server(guest):
    inst, pid = guest
    found = qemu_probe.status(pid)
    uids = {int(number) for number in (found["Uid"] + "\t" + found["Gid"]).split()}
    assert len(uids) == 1
    assert uids.pop() > 65535
    assert found["Groups"].strip() == ""
    assert qemu_probe.status(inst.state.pid)["Uid"] != found["Uid"]
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert not int(found["CapEff"], 16) & 1 << 21  # CAP_SYS_ADMIN
    assert int(found["CapEff"], 16) & ~sum(1 << number for number in server.CAPABILITIES.values()) == 0
    names = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
    spaces = [{os.readlink(f"/proc/{one}/ns/{name}") for name in names} for one in ("self", pid, inst.state.pid)]
    assert not spaces[1] & (spaces[0] | spaces[2])
    with open(f"/proc/{pid}/uid_map") as file:
        inside, outside, count = map(int, file.read().split())
    assert (inside, outside, count) == (0, inst.state.own["qemu_uid"] + 1, 65535)
    with open(f"/proc/{pid}/net/dev") as file:
        assert len(re.findall(r"^ *\w+:", file.read(), re.MULTILINE)) == 1  # loopback, which is down
    mounts = {line.split()[4] for line in content(f"/proc/{pid}/mountinfo").splitlines()}
    assert all(re.match(r"/($|volume|proc|lib|usr/lib|etc/ld.so.cache)", path) for path in mounts), mounts


@pytest.mark.attack(
    "reads and changes files and processes of the host, and reaches its network, from a file server taken over",
    **IN_GUEST,
)
def test_the_host_from_a_file_server(guest, tmp_path):
    inst, pid = guest
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o644)
    paths = ("/etc/shadow", "/etc/passwd", str(secret), inst.path("disk.img"), "/proc/1/root/etc/shadow")
    attempts = {path: lambda path=path: qemu_probe.read(path) for path in paths}
    for folder in ("/", "/tmp", "/usr/lib", "/proc", str(tmp_path)):
        attempts[f"write {folder}"] = lambda folder=folder: os.open(f"{folder}/made", os.O_WRONLY | os.O_CREAT, 0o600)
    for victim in (os.getpid(), os.getppid(), inst.state.pid):  # 1 is the file server itself
        attempts[f"kill {victim}"] = lambda victim=victim: os.kill(victim, signal.SIGCONT)
        attempts[f"trace {victim}"] = lambda victim=victim: qemu_probe.trace(victim)
    attempts["mount"] = lambda: qemu_probe.syscalls.mount("tmpfs", "/volume", "tmpfs")
    device = os.stat("/").st_dev
    attempts["mknod"] = lambda: os.mknod("/volume/disk", 0o600 | stat.S_IFBLK, device)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        attempts["network"] = lambda: socket.create_connection(("127.0.0.1", port), timeout=2)
        held(qemu_probe.as_qemu(pid, attempts))
    its_own = qemu_probe.as_qemu(pid, {"volume": lambda: os.listdir("/volume")})
    assert its_own["volume"][0] == "got through"  # the probe is where the file server is


@pytest.mark.attack("fills the host's disk with the errors of its file server", **IN_GUEST)
def test_errors_without_end(guest):
    inst, pid = guest
    log = inst.path("volumes.log")
    with open(f"/proc/{pid}/fd/2", "wb", buffering=0) as stream:
        begin = time.monotonic()
        for _ in range(200):
            stream.write(b"x" * 4000)
            assert time.monotonic() - begin < 120
    assert os.stat(log).st_size <= 1 << 16
