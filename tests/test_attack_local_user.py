"""Another user of the host, without any rights, reaches nothing of an instance, an image or a measurement."""

import errno
import glob
import json
import os
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from support import qemu_probe
from support.as_nobody import NOBODY, as_nobody, output_of, reached_below
from support.attack_table import modes
from support.attacks import Cell
from support.commands import VMCTL, ok, wait_for

from vmctl import paths, private
from vmctl.errors import UnavailableError

pytestmark = pytest.mark.timeout(600)
OTHER = 65533  # a user who is not nobody


@pytest.fixture(scope="module", params=["container", "host", "vm"])
def mode(request):
    return request.param


@pytest.fixture(scope="module", params=["root"])  # the folders of an ordinary user are in a home that is closed too
def who(request):
    return request.param


@pytest.fixture(scope="module")
def open_root(guest_root):
    """The VMCTL_ROOT of this file, in a folder that everybody can enter, as /var/lib is."""
    os.chmod(guest_root, 0o755)
    return guest_root


@pytest.fixture(scope="module")
def cell(open_root, caller, mode):
    keys = {"env": {"TOKEN": "secret"}, "files": [{"path": "/etc/key", "content": "secret", "mode": "0644"}]}
    keys["volumes"] = ["/usr/bin/id:/given:ro"] if mode != "vm" else ["of-root:/n"]  # a guest's has a file server
    script = "echo secret; if [ -e /given ]; then cp /given /evil && chmod 4755 /evil; fi; exec sleep 100000"
    cell = Cell(caller, mode, command=["sh", "-c", script], **keys)
    cell.shell("until [ -e /proc/uptime ] && { [ ! -e /given ] || [ -u /evil ]; }; do sleep 0.1; done")
    yield cell
    cell.end()
    caller.vmctl("volume", "rm", "of-root")


@pytest.mark.attack("as another user of the host, reads the variables, files, logs, keys and sockets of an instance")
def test_files_of_an_instance(cell, open_root):
    wait_for(lambda: "secret" in cell.caller.ok("logs", cell.name))
    assert reached_below(open_root) == []


@pytest.mark.attack(
    "as another user of the host, signals, traces and looks into an instance, its helpers and the way out"
)
def test_processes_of_an_instance(cell, open_root):
    with subprocess.Popen(
        ["sleep", "1000"], user=NOBODY, group=NOBODY, extra_groups=[], env={"HOME": str(open_root)}
    ) as own:
        found = _processes(str(open_root).encode(), f"/{cell.name}".encode())
        assert set(found) > {own.pid, cell.caller.inspect(cell.name)["pid"]}
        reached = as_nobody(lambda: [f"{pid}: {what}" for pid in found for what in _reached(pid)])
        own.kill()
    assert {text.partition(":")[0] for text in reached} == {str(own.pid)}, reached  # which shows that it is seen
    assert len(reached) == 8


def _processes(*marks):
    """Return the pids that have one of the marks in their command, variables or control group, but not this one."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            seen = b"".join(Path(f"/proc/{name}/{file}").read_bytes() for file in ("cmdline", "environ", "cgroup"))
            if any(mark in seen for mark in marks) and int(name) not in (os.getpid(), os.getppid()):
                found.append(int(name))
    return found


def _reached(pid):
    """Yield what this user can do with a process."""
    attempts = {file: lambda file=file: qemu_probe.read(f"/proc/{pid}/{file}") for file in ("environ", "maps", "mem")}
    attempts |= {file: lambda file=file: os.listdir(f"/proc/{pid}/{file}") for file in ("fd", "root", "cwd")}
    attempts |= {"signal": lambda: os.kill(pid, 0), "trace": lambda: qemu_probe.trace(pid)}
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            if name == "mem" and error.errno == errno.EIO:  # it was opened; there is nothing at address 0
                yield name
        else:
            yield name


@pytest.mark.attack("as another user of the host, runs a setuid program that a workload has made in its writable layer")
@modes("container", "host")  # that of a guest is a disk image
def test_setuid_program_of_a_workload(cell):
    found = [os.path.join(cell.caller.inspect(cell.name)["directory"], name) for name in ("upper/evil", "rootfs/evil")]
    assert os.stat(found[0]).st_mode & stat.S_ISUID
    assert [output_of(path, "-u") for path in found if output_of(path, "-u") == "0\n"] == []
    assert output_of("/usr/bin/id", "-u") == f"{NOBODY}\n"


@pytest.fixture
def image_with_setuid(own_store, tmp_path):
    os.chmod(own_store, 0o755)
    (tmp_path / "Dockerfile").write_text("FROM tiny\nCOPY --chmod=4755 id /evil\n")
    (tmp_path / "id").write_bytes(Path("/usr/bin/id").read_bytes())
    ok("image", "build", "--quiet", "--tag", "evil", str(tmp_path))
    (tmp_path / "evil.yaml").write_text("image: evil\ncommand: [sleep, '1000']\n")
    name = ok("up", "--quiet", "--name", f"evil-{os.getpid()}", str(tmp_path / "evil.yaml")).strip()
    yield
    ok("rm", "-f", name)


@pytest.mark.attack("as another user of the host, runs a setuid program of an image, in its mounted layer", mode="any")
def test_setuid_program_of_an_image(image_with_setuid):
    found = glob.glob(os.path.join(paths.run_root(), "layers", "*", "evil"))
    assert len(found) == 1
    assert os.stat(found[0]).st_mode & stat.S_ISUID
    assert output_of(found[0], "-u") != "0\n"
    assert reached_below(os.environ["VMCTL_ROOT"]) == []


@pytest.mark.attack("as another user of the host, reads instances of an earlier version, whose folders are open")
def test_open_folders_of_an_earlier_version(cell, open_root):
    workload = os.path.join(cell.caller.inspect(cell.name)["directory"], "workload.json")
    for path in (paths.state_root(), paths.run_root(), paths.instances_root(), os.path.dirname(workload), workload):
        os.chmod(path, 0o755)
    assert workload in reached_below(open_root)
    cell.caller.ok("ps")
    assert reached_below(open_root) == []


@pytest.mark.attack("as another user of the host, makes the VMCTL_ROOT of a user in /tmp before that user does")
def test_run_folder_of_another_user(monkeypatch):
    theirs = f"/tmp/vmctl-{NOBODY}"
    monkeypatch.setenv("VMCTL_ROOT", theirs)
    os.mkdir(theirs, 0o777)
    try:
        os.chmod(theirs, 0o777)
        os.chown(theirs, OTHER, OTHER)
        assert as_nobody(private.close_folders) == f"UnavailableError: {theirs} belongs to user {OTHER}"
    finally:
        os.rmdir(theirs)


def test_a_folder_of_somebody_else_is_not_used(empty_root):
    os.makedirs(paths.state_root())
    os.chown(paths.state_root(), OTHER, OTHER)
    with pytest.raises(UnavailableError, match=f"belongs to user {OTHER}"):
        private.close_folders()


def test_everything_is_private_from_the_first_byte(empty_root, tmp_path):
    def private_ones(*words):
        subprocess.run([VMCTL, *words], check=True, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.umask(0))

    (tmp_path / "w.yaml").write_text("image: tiny\nenv: {TOKEN: secret}\ncommand: [sh, -c, 'umask; exec sleep 1000']\n")
    private_ones("image", "build", "tiny")
    private_ones("up", "--quiet", str(tmp_path / "w.yaml"))
    try:
        wait_for(lambda: ok("logs", "w") == "0022\n")
        upper = json.loads(ok("inspect", "w"))[0]["directory"] + "/upper"
        layers = (os.path.join(paths.run_root(), "layers"), os.path.join(paths.images_root(), "packages"))
        layers += (os.path.join(paths.run_root(), "net", "names"),)  # read by name servers, which have other uids
        found = [
            path
            for place, folders, files in os.walk(empty_root)
            for path in (os.path.join(place, name) for name in [*folders, *files])
            if not path.startswith((upper, upper.replace("upper", "rootfs"), *layers))
        ]
        assert len(found) > 20
        opened = [path for path in found if not os.path.islink(path) and os.lstat(path).st_mode & 0o077]
        # a layer is read by guests, whose QEMU has another uid; the others are files of the kernel: namespaces
        expected = {"erofs", "switch", "lobby", "lobby-users"}
        assert {os.path.basename(path).rpartition(".")[2] for path in opened} <= expected
        (tmp_path / "b.yaml").write_text("image: tiny\ncommand: [echo, hello]\n")
        private_ones("bench", str(tmp_path / "b.yaml"), "--modes", "host", "--runs", "1", "--out", str(tmp_path / "o"))
        assert [path.name for path in (tmp_path / "o").iterdir() if path.stat().st_mode & 0o077] == []
    finally:
        ok("rm", "-f", "w")
