"""Impossible requests are refused with a clear error and exit code 125, and leave nothing behind."""

import json
import os
import socket
import subprocess
import sys
import tempfile

import pytest
from support.commands import VMCTL, free_port, ok, refused, vmctl
from support.host_state import host_state, left_behind

from vmctl import backends, paths

MODES = sorted(backends.modes())
EACH_MODE = pytest.mark.parametrize("mode", MODES)
NOBODY = 65534


@pytest.fixture
def short_root(monkeypatch):
    """A separate VMCTL_ROOT with a short path, with the host's images and without its caches."""
    images = paths.images_root()
    with tempfile.TemporaryDirectory(prefix="vmctl-") as root:
        monkeypatch.setenv("VMCTL_ROOT", root)
        os.makedirs(paths.state_root())
        os.symlink(images, paths.images_root())
        yield root


def write(folder, text, name="leak"):
    path = os.path.join(folder, f"{name}.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"image: tiny\n{text}\n")
    return path


SLEEP = "command: [sleep, '1000']"


@pytest.mark.alone
@EACH_MODE
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("comand: [sh]", "the key comand is unknown"),
        ("command: sh", "the key command: expected a list, got a text"),
        ("image: other", "the key image is given twice"),
        ("ports: ['80:']", "the key ports[0]: expected a port"),
    ],
)
def test_wrong_workload_file(guest_root, tmp_path, mode, text, message):
    before = host_state()
    assert message in refused("up", "--mode", mode, write(tmp_path, text))
    assert left_behind(before) == {}


@pytest.mark.alone
@EACH_MODE
def test_no_such_image(guest_root, tmp_path, mode):
    before = host_state()
    path = tmp_path / "leak.yaml"
    path.write_text("image: tinny\n")
    output = refused("up", "--mode", mode, str(path))
    assert "there is no image tinny" in output
    assert "tiny" in output.partition("hint:")[2]
    assert left_behind(before) == {}


@pytest.mark.alone
@EACH_MODE
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_and_by_whom(guest_root, tmp_path, mode, address):
    before = host_state()
    with socket.socket() as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        output = refused("up", "--mode", mode, write(tmp_path, f"{SLEEP}\nports: ['{port}:80']"))
    assert f"the port 127.0.0.1:{port}/tcp is taken by" in output
    assert f"(process {os.getpid()})" in output
    assert left_behind(before) == {}


@pytest.mark.alone
def test_an_address_that_is_not_ours(guest_root, tmp_path):
    before = host_state()
    output = refused("up", write(tmp_path, f"{SLEEP}\nports: ['203.0.113.7:{free_port()}:80']"))
    assert "this host does not have the address of" in output
    assert left_behind(before) == {}


@EACH_MODE
def test_everything_wrong_is_said_at_once(guest_root, tmp_path, mode):
    path = tmp_path / "leak.yaml"
    path.write_text(f"image: tinny\nvolumes: ['{tmp_path}/absent:/data']\nports: ['203.0.113.7:{free_port()}:80']\n")
    output = refused("up", "--mode", mode, str(path))
    assert "there is no image tinny" in output
    assert output.count("also: ") >= 2


# Not root


def as_nobody(*words):
    """Return (code, stderr) of a call as an unprivileged user.

    In a fork of this process, since the user may not be able to read the interpreter; everything is imported before.
    """
    program = f"""
import io, os, sys
sys.argv[1:] = {["up", "--dry-run"]!r}
from vmctl.cli import main
import vmctl.cli.up, vmctl.cli.run, vmctl.engine, vmctl.spec.workloadfile, containers.checks, vmm.checks, encodings.idna
words = {list(words)!r}
sys.stdout = io.StringIO()
main([*words, "--dry-run"] if words[0] == "up" else ["ps"])
sys.stdout = sys.__stdout__
sys.stderr.flush()
os.write(2, b"# as nobody\\n")
os.setgroups([]); os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
sys.exit(main(words))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.returncode, done.stderr.partition("# as nobody\n")[2]


@pytest.mark.alone
@EACH_MODE
def test_not_root(guest_root, tmp_path, mode):
    before = host_state()
    os.chmod(guest_root, 0o755)
    path = write(tempfile.gettempdir(), SLEEP, name=f"leak-{os.getpid()}")
    try:
        code, output = as_nobody("up", "--mode", mode, path)
    finally:
        os.unlink(path)
    assert code == 125
    assert "root" in output
    assert "sudo" in output
    assert "Traceback" not in output
    assert left_behind(before) == {}


# A host that lacks something: it is hidden from the command in a separate mount namespace


def where(hide, *words):
    """Run the command in a mount namespace in which `hide` (shell lines) has changed the mounts."""
    script = f'{hide}\nexec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", VMCTL, *words], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def found_by_doctor(name):
    rows = json.loads(vmctl("doctor", "--format", "json").out)
    return next(row["found"] for row in rows if row["name"] == name)


@pytest.mark.alone
def test_no_qemu(guest_root, tmp_path):
    before = host_state()
    qemu = found_by_doctor("QEMU").partition(":")[0]
    code, out, err = where(f"mount --bind /dev/null {qemu}", "up", "--mode", "vm", write(tmp_path, SLEEP))
    assert (code, out) == (125, "")
    assert "QEMU is not installed" in err
    assert "vmctl doctor" in err
    assert left_behind(before) == {}


@pytest.mark.alone
def test_no_libvirt_driver(short_root, tmp_path):
    before = host_state()
    folder = os.path.dirname(found_by_doctor("libvirt's QEMU driver"))
    code, out, err = where(f"mount -t tmpfs none {folder}", "up", "--mode", "vm", write(tmp_path, SLEEP))
    assert (code, out) == (125, "")
    assert "libvirt" in err
    assert "hint:" in err
    assert "Traceback" not in err
    assert left_behind(before) == {}


@pytest.mark.alone
def test_no_libvirt_at_all(guest_root, tmp_path):
    before = host_state()
    library = os.path.realpath(found_by_doctor("libvirt"))
    code, out, err = where(f"mount --bind /dev/null {library}", "up", "--mode", "vm", write(tmp_path, SLEEP))
    assert (code, out) == (125, "")
    assert "libvirt cannot be loaded" in err
    assert left_behind(before) == {}
    code, out, err = where(f"mount --bind /dev/null {library}", "run", "tiny", "--", "echo", "without it")
    assert (code, out) == (0, "without it\n")


@pytest.mark.alone
def test_no_kvm(short_root, tmp_path):
    """--accel kvm fails with the reason for which auto falls back."""
    before = host_state()
    arguments = ("up", "--mode", "vm", "--accel", "kvm", write(tmp_path, SLEEP))
    code, out, err = where("mount --bind /dev/null /dev/kvm 2>/dev/null || true", *arguments)
    assert (code, out) == (125, "")
    assert "KVM" in err
    assert "Traceback" not in err
    assert left_behind(before) == {}


@pytest.mark.alone
def test_no_such_daemon(short_root, tmp_path):
    before = host_state()
    path = write(tmp_path, f"{SLEEP}\nnetwork: none")
    connect = ("--connect", "qemu+unix:///system?socket=/nowhere")
    output = refused("up", "--mode", "vm", "--accel", "tcg", *connect, path)  # auto may try KVM for 10 s, and report it
    assert "libvirt" in output
    assert left_behind(before) == {}


def test_no_cgroups(guest_root, tmp_path):
    code, out, err = where("umount -R -l /sys/fs/cgroup", "up", write(tmp_path, SLEEP))
    assert (code, out) == (125, "")
    assert "no cgroup controller is mounted" in err


# A full disk at every step of a start


@pytest.fixture
def disk(short_root):
    """Return a function that limits the disk of VMCTL_ROOT to a number of files or bytes."""
    images = os.readlink(paths.images_root())
    mounted = False

    def limit(options):
        nonlocal mounted
        if mounted:
            subprocess.run(["umount", short_root], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "disk", short_root], check=True)
        mounted = True
        os.makedirs(paths.state_root())
        os.symlink(images, paths.images_root())

    yield limit
    if mounted:
        subprocess.run(["umount", "-l", short_root], check=True)


@pytest.mark.alone
@pytest.mark.parametrize("mode", ["container", "host"])
def test_a_disk_with_room_for_so_many_files(disk, tmp_path, mode):
    """The disk becomes full at each file of a start, one after the other."""
    path = write(tmp_path, f"{SLEEP}\nfiles: [{{path: /etc/leak, content: x}}]\nports: ['{free_port()}:80']")
    files, failures = 6, 0  # those of the disk itself
    while True:
        disk(f"nr_inodes={files}")
        before = host_state()
        result = vmctl("up", "--mode", mode, path)
        if result.code == 0:
            break
        failures += 1
        assert result.code == 125, result
        assert "No space left on device" in result.err or "disk is full" in result.err, result
        assert "Traceback" not in result.err, result
        assert left_behind(before) == {}, f"with room for {files} files"
        files += 1
    assert failures > 4
    ok("down", "leak")
    assert left_behind(before) == {}


@pytest.mark.alone
@pytest.mark.parametrize("mode", ["container", "host"])
def test_a_disk_with_no_room_for_the_workloads_files(disk, tmp_path, mode):
    path = write(tmp_path, f"{SLEEP}\nfiles: [{{path: /srv/large, content: {'x' * 200_000}}}]")
    for size in ("64k", "300k"):  # the workload itself, then the file inside
        disk(f"size={size}")
        before = host_state()
        assert "No space left on device" in refused("up", "--mode", mode, path)
        assert left_behind(before) == {}


@pytest.mark.alone
def test_a_disk_with_no_room_for_a_guest(disk, tmp_path):
    for options in ("size=16k", "size=256k", "size=5M", "nr_inodes=14"):
        disk(options)
        before = host_state()
        output = refused("up", "--mode", "vm", write(tmp_path, SLEEP))
        assert "space" in output or "room" in output, output
        assert {**left_behind(before), "files": None} == {"files": None}, options
        assert not os.path.exists(os.path.join(paths.instances_root(), "leak"))
