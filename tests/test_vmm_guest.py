"""Real guests (TCG) through the backend: their output, their limits, their end."""

import os
import pty
import signal
import time

import pytest

from vmctl import backends, engine
from vmctl.backend import Command, Exit
from vmctl.errors import CommandNotFoundError, VmctlError
from vmctl.instances import instance
from vmctl.linux.cgroups import Cgroup
from vmctl.spec.workload import File, Resources, Workload
from vmm import files, keys, preparation, ssh
from vmm.backend import VmBackend

TALKER = "echo out; echo err >&2; trap 'echo bye; exit 9' TERM; while :; do sleep 0.1; done"
TIMEOUT_S = 240.0


def read(path):
    with open(path) as file:
        return file.read()


def wait_for(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return result


@pytest.fixture(scope="module")
def guest(guest_root):
    """A running guest, seen by a process that has not started it."""
    work = Workload(
        "talker",
        "tiny",
        ("sh", "-c", TALKER),
        env={"GREETING": "it's hello"},
        workdir="/srv",
        files=(File("/srv/index.html", "<h1>hello</h1>"),),
        resources=Resources(cpus=1.5, memory_bytes=128 * 1024**2, pids=50),
    )
    backend = VmBackend()
    inst = engine.create(work, backend)
    with inst.locked():
        with engine.bring_up(inst, backend) as start:
            wait_for(lambda: start.watch.observe() and "T5" in inst.timeline.marks_ns)
        inst.save()
    yield instance.load("talker")
    engine.rm("talker", force=True)


def run_in(guest, *argv, **options):
    return VmBackend().exec(guest, Command(argv, stdin=False, **options))


def test_start_is_on_the_timeline(guest):
    marks = guest.timeline.marks_ns
    assert marks["T0"] < marks["T1"] < marks["T4"] < marks["T5"]


def test_streams_are_kept_apart(guest):
    wait_for(lambda: read(guest.stdout_log) and read(guest.stderr_log))  # in any order
    assert read(guest.stdout_log) == "out\n"
    assert read(guest.stderr_log) == "err\n"


def test_exec_runs_in_the_guests_kernel(guest, capfd):
    assert run_in(guest, "uname", "-r") == 0
    assert capfd.readouterr().out.strip() not in ("", os.uname().release)


def test_exec_is_as_the_workload_unless_told(guest, capfd):
    assert run_in(guest, "sh", "-c", "echo $GREETING; pwd; id -u; cat index.html") == 0
    assert capfd.readouterr().out == "it's hello\n/srv\n0\n<h1>hello</h1>"
    assert run_in(guest, "sh", "-c", "echo $A; pwd; id -u", env=(("A", "b c"),), workdir="/tmp", user="1000:1000") == 0
    assert capfd.readouterr().out == "b c\n/tmp\n1000\n"


@pytest.mark.parametrize(("argv", "code"), [(["true"], 0), (["sh", "-c", "exit 41"], 41)])
def test_exec_gives_the_commands_code(guest, argv, code):
    assert run_in(guest, *argv) == code


@pytest.mark.parametrize(("command", "code"), [("/srv", 126), ("no", 127)])
def test_exec_of_a_command_that_cannot_be_executed(guest, command, code):
    with pytest.raises(VmctlError, match=f"the command {command} ") as caught:
        run_in(guest, command)
    assert caught.value.exit_code == code


def test_exec_keeps_the_streams_apart_and_whole(guest, capfd):
    assert run_in(guest, "sh", "-c", "seq 20000; echo err >&2") == 0
    out, err = capfd.readouterr()
    assert (out.split(), err) == ([str(number) for number in range(1, 20001)], "err\n")


def test_exec_passes_standard_input_on(guest, capfd):
    ours, theirs = os.pipe()
    os.write(theirs, b"one\ntwo\n")
    os.close(theirs)
    saved = os.dup(0)
    os.dup2(ours, 0)
    try:
        assert VmBackend().exec(guest, Command(("cat",))) == 0
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(ours)
    assert capfd.readouterr().out == "one\ntwo\n"


def test_shell_has_a_terminal(guest):
    pid, terminal = pty.fork()
    if pid == 0:
        os._exit(VmBackend().exec(guest, Command(("sh",), tty=True)))
    output = b""
    while b"# " not in output:  # the prompt; what is typed earlier is flushed with the change to raw mode
        output += os.read(terminal, 4096)
    os.write(terminal, b"tty && echo $((6*7))\nexit 5\n")
    try:
        while part := os.read(terminal, 4096):
            output += part
    except OSError:  # EIO: the other side is closed
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert b"/dev/pts/" in output
    assert b"42" in output


def test_ssh_trusts_only_the_guests_own_key(guest, tmp_path):
    other = ssh.Guest(
        name=guest.name,
        address=guest.state.address,
        port=ssh.PORT,
        client_key=files.client_key(guest),
        host_public=keys.load_or_make(str(tmp_path / "other")).public,
        runs=lambda: True,
    )
    with pytest.raises(VmctlError, match="its host key differs"):
        ssh.execute(other, "true", tty=False, stdin=False)


def test_exec_makes_files_that_others_can_read(guest, capfd):
    assert run_in(guest, "sh", "-c", "umask") == 0
    assert capfd.readouterr().out == "0022\n"


def test_limits_took(guest, capfd):
    assert run_in(guest, "sh", "-c", "nproc; awk '/MemTotal/ { print $2 }' /proc/meminfo") == 0
    vcpus, memory_kib = capfd.readouterr().out.split()
    assert vcpus == "2"
    assert 64 * 1024 < int(memory_kib) < 128 * 1024
    group = Cgroup(guest.cgroup)
    assert group.pids() == [guest.state.pid]
    quota = "cpu.max" if group.layout.version == 2 else "cpu.cfs_quota_us"
    assert read(os.path.join(group.folders["cpu"], quota)).split()[0] == "150000"


def test_footprint_counts_what_is_there(guest):
    found = VmBackend().footprint(guest)
    assert found.pss_bytes > 64 * 1024**2
    assert found.cgroup_bytes > 64 * 1024**2
    assert 0 < found.disk_bytes < 8 * 1024**2
    assert found.shared_disk_bytes > 1024**2


def test_term_reaches_the_workload_and_its_code_comes_back(guest):
    backend = backends.load("vm")
    watch = backend.watch(guest)
    assert watch.result() is None
    backend.signal(guest, signal.SIGTERM)
    wait_for(lambda: not watch.alive())
    assert watch.result() == Exit(9, "workload")
    assert read(guest.stdout_log) == "out\nbye\n"
    backend.signal(guest, signal.SIGTERM)  # to one that is gone: nothing happens


def attended(work, stdin=b"", *, term_after=""):
    """Run a workload attached, in a separate process; return (code, stdout, stderr).

    After the output `term_after`, SIGTERM is sent to that process, not to the guest.
    """
    pipes = [os.pipe() for _ in range(3)]
    pid = os.fork()
    if pid == 0:
        for fd, ends in enumerate(pipes):
            os.dup2(ends[0 if fd == 0 else 1], fd)
        for pair in pipes:
            os.close(pair[0]), os.close(pair[1])
        try:
            os._exit(engine.run(work, "vm").code)
        except VmctlError as error:
            os.write(2, str(error).encode())
            os._exit(error.exit_code)
    os.close(pipes[0][0]), os.close(pipes[1][1]), os.close(pipes[2][1])
    os.write(pipes[0][1], stdin)
    os.close(pipes[0][1])
    early = ""
    while term_after not in early:
        part = os.read(pipes[1][0], 65536)
        assert part, "it ended before it output so"
        early += part.decode()
    if term_after:
        os.kill(pid, signal.SIGTERM)
    texts = [read(ours) for ours, _ in pipes[1:]]
    texts[0] = early + texts[0]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *texts


def test_attended_run_has_our_streams(guest_root):
    script = "trap 'echo term; exit 7' TERM; cat; echo end >&2; echo eof; while :; do sleep 0.1; done"
    work = Workload("attended", "tiny", ("sh", "-c", script), network="none")
    typed = "".join(f"line {number}\n" for number in range(1000))
    assert attended(work, typed.encode(), term_after="eof\n") == (7, f"{typed}eof\nterm\n", "end\n")
    assert "attended" not in instance.names()


@pytest.mark.long  # test_contract.py: test_run_gives_the_commands_code
def test_attended_run_of_a_command_that_is_not_there(guest_root):
    code, out, err = attended(Workload("missing", "tiny", ("no-such-command",), network="none"))
    assert (code, out) == (CommandNotFoundError.exit_code, "")
    assert "no-such-command" in err
    assert "missing" not in instance.names()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo c >/proc/sysrq-trigger; sleep 60", "because its kernel panicked: sysrq triggered crash"),
        ("poweroff -f; sleep 60", "because it was switched off from inside"),
    ],
)
def test_guest_that_ends_itself(guest_root, script, why):
    code, _, err = attended(Workload("ends", "tiny", ("sh", "-c", script), network="none"))
    assert code == VmctlError.exit_code
    assert why in err


@pytest.mark.long  # test_contract.py: test_more_processors_than_the_host_has_are_said
def test_no_guest_has_more_processors_than_its_host(guest_root):
    code, out, _ = attended(Workload("many", "tiny", ("nproc",), network="none", resources=Resources(cpus=64.0)))
    assert (code, out) == (0, f"{preparation.host_cpus()}\n")


def test_guest_that_dies_while_booting(guest_root):
    backend = VmBackend()
    inst = engine.create(Workload("dies", "tiny", ("true",), network="none"), backend)
    with inst.locked(), engine.bring_up(inst, backend, wait=False) as start:
        os.kill(inst.state.pid, signal.SIGKILL)
        with pytest.raises(VmctlError, match="shut down while in phase booting"):
            wait_for(lambda: start.watch.observe() == "never")
        assert start.watch.result() is None  # nobody has reported how it ended
    engine.rm("dies", force=True)


def test_kill_ends_a_guest_in_any_phase(guest_root):
    backend = VmBackend()
    inst = engine.create(Workload("killed", "tiny", ("true",), network="none"), backend)
    with inst.locked(), engine.bring_up(inst, backend, wait=False) as start:
        backend.signal(inst, signal.SIGKILL)
    assert not start.watch.alive()
    assert VmBackend().watch(instance.load("killed")).result() == Exit(137, "signal")
    engine.rm("killed", force=True)
