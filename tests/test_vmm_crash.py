"""`kill -9` of the command at several points of a start: afterwards `rm` leaves nothing."""

import os
import signal
import threading
import time

import pytest

from vmctl import engine, paths
from vmctl.backend import Exit
from vmctl.errors import UnavailableError, VmctlError
from vmctl.instances import instance
from vmctl.linux import processes, syscalls
from vmctl.net import switch
from vmctl.spec.workload import Workload
from vmm import confinement, domain, files, launcher, qemu
from vmm.backend import VmBackend

pytestmark = pytest.mark.alone  # what the host shows is compared whole

WORK = Workload("crash", "tiny", ("sleep", "1000"))


def host():
    """Return what a start could leave behind outside of the state directory."""
    with open("/proc/self/mountinfo") as file:
        mounts = sorted(line.split(" ", 4)[4] for line in file)
    groups = [path for path, folders, _ in os.walk("/sys/fs/cgroup") if path.endswith(f"/{WORK.name}")]
    return mounts, sorted(os.listdir("/sys/class/net")), groups, switch.exists()


def start_and_die(after_s):
    """Start the workload in a process that is killed so many seconds into the call of `start`."""
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        return
    backend = VmBackend()
    inst = engine.create(WORK, backend)
    with inst.locked():
        start = backend.prepare(inst)
        inst.save()
        if after_s is not None:
            threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
            start.begin()
        os.kill(os.getpid(), signal.SIGKILL)


# createXML takes about 0.1 s; the last one is killed with QEMU running
@pytest.mark.parametrize("after_s", [None, 0.0, 0.01, 0.02, 0.05, 0.08, 0.2])
def test_nothing_is_left_after_kill_9(guest_root, after_s):
    before = host()
    start_and_die(after_s)
    inst = instance.load(WORK.name)
    uuid = domain.machine_uuid(inst.state.id)
    engine.rm(WORK.name, force=True)
    assert qemu.find(uuid) is None
    assert not processes.alive(inst.state.supervisor_pid, inst.state.supervisor_start)
    assert not os.path.exists(inst.directory)
    assert not os.path.exists(inst.run_dir)
    assert host() == before


@pytest.mark.parametrize("damaged", ["workload.json", "state.jsonl"])
def test_a_guest_that_cannot_be_read_is_ended_by_force(guest_root, damaged):
    """QEMU is in the cgroup, which the host itself can undo; the layers' leases end with the folder."""
    start_and_die(0.2)
    inst = instance.load(WORK.name)
    with open(inst.path(damaged), "w") as file:
        file.write("damaged\n")
    with pytest.raises(VmctlError, match=r"crash: .* is damaged"):
        engine.rm(WORK.name)
    left = engine.rm(WORK.name, force=True)
    assert [text.partition(" ")[0] for text in left if not text.startswith("lease ")] == (
        ["domain"] if damaged == "state.jsonl" else []
    )
    assert qemu.find(domain.machine_uuid(inst.state.id)) is None
    assert not os.path.exists(inst.directory)
    assert not os.path.exists(inst.run_dir)
    assert not switch.exists()


def test_nothing_is_left_after_kill_9_while_preparing(guest_root):
    before = host()
    pid = os.fork()
    if pid == 0:
        backend = VmBackend()
        inst = engine.create(WORK, backend)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
        with inst.locked():
            start = backend.prepare(inst)
            time.sleep(10)
            start.close()
    os.waitpid(pid, 0)
    engine.rm(WORK.name, force=True)
    assert host() == before
    assert os.listdir(paths.instances_root()) == []


def test_failed_start_says_why_and_leaves_nothing(guest_root, monkeypatch):
    before = host()
    monkeypatch.setattr(domain, "_features", lambda: domain._element("no-such-element"))
    monkeypatch.setattr(domain, "_clock", lambda: domain._element("clock", offset="no such offset"))
    with pytest.raises(VmctlError, match=r"libvirt cannot start the guest crash: .*offset"):
        engine.up(WORK, "vm", wait=False)
    assert host() == before
    assert os.listdir(paths.instances_root()) == []


def test_a_qemu_that_cannot_be_confined_is_not_started(guest_root, monkeypatch):
    def refuse(*_, **__):
        raise OSError(1, "Operation not permitted", "/")

    monkeypatch.setattr(confinement, "enter", refuse)
    with pytest.raises(UnavailableError, match="QEMU of crash cannot be confined: Operation not permitted"):
        engine.up(WORK, "vm", wait=False)
    assert os.listdir(paths.instances_root()) == []


def test_full_disk(guest_root):
    before = host()
    os.makedirs(paths.instances_root(), exist_ok=True)
    syscalls.mount("tmpfs", paths.instances_root(), "tmpfs", 0, "size=100k")
    try:
        with pytest.raises(VmctlError, match=r"mke2fs|No space left"):
            engine.up(WORK, "vm")
        assert os.listdir(paths.instances_root()) == []
    finally:
        syscalls.umount2(paths.instances_root())
    assert host() == before


def test_libvirt_daemon_that_is_not_there(guest_root):
    options = {"connect": "qemu+unix:///system?socket=/nowhere"}
    with pytest.raises(UnavailableError, match="network"):
        engine.up(WORK, "vm", options=options)
    with pytest.raises(UnavailableError, match="cannot open"):
        engine.up(WORK._replace(network="none"), "vm", options=options)
    assert os.listdir(paths.instances_root()) == []


def test_launcher_ends_with_its_caller(guest_root):
    inst = engine.create(WORK, VmBackend())
    started = launcher.Launcher(lambda: "test:///default", "/bin/false", "test")
    with pytest.raises(VmctlError):
        started.opened()
    pid = started._pid
    started.close()
    with pytest.raises(ChildProcessError):  # it has ended, and been waited for
        os.waitpid(pid, os.WNOHANG)
    engine.rm(inst.name, force=True)


def test_question_to_libvirt_that_fails(guest_root):
    def question():
        raise VmctlError("no answer", hint="ask again")

    with pytest.raises(VmctlError, match="no answer") as caught:
        launcher.ask(question)
    assert caught.value.hint == "ask again"
    assert launcher.ask(lambda: "answer") == "answer"


def test_pid_file_names_a_living_holder_only(tmp_path):
    import fcntl

    path = tmp_path / "pid"
    assert qemu.lock_holder(str(path)) is None
    path.write_text("1")
    assert qemu.lock_holder(str(path)) is None
    pid = os.fork()
    if pid == 0:
        with open(path, "w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            time.sleep(30)
    while qemu.lock_holder(str(path)) is None:
        time.sleep(0.01)
    assert qemu.lock_holder(str(path)) == pid
    qemu.end(str(path), "no-uuid")
    os.waitpid(pid, 0)
    assert qemu.lock_holder(str(path)) is None
    assert not processes.alive(pid, None)


def test_result_of_a_guest_that_was_never_started(guest_root):
    backend = VmBackend()
    inst = engine.create(WORK, backend)
    assert backend.watch(inst).result() is None
    with open(files.marks(inst), "w") as file:
        file.write("init\nexec\nexit 3 workload\nexit")
    assert backend.watch(inst).result() == Exit(3, "workload")
    engine.rm(inst.name, force=True)
