"""The host before and after: for success, for failed starts, and for `kill -9` at every point of a start."""

import os
import signal
import socket
import subprocess
import time

import pytest
from support.commands import free_port, inspect, ok, passes_signals_on, refused, start, vmctl, wait_for
from support.host_state import PREFIX, host_state, left_behind, stays_behind

from vmctl import backends, engine, removal
from vmctl.errors import ConflictError
from vmctl.instances import instance
from vmctl.journal import Journal
from vmctl.linux import processes, syscalls
from vmctl.linux.cgroups import Cgroup
from vmctl.net import bridge, lobby
from vmctl.spec import workloadfile
from vmctl.spec.workload import Workload

pytestmark = pytest.mark.alone

MODES = sorted(backends.modes())
EACH_MODE = pytest.mark.parametrize("mode", MODES)
QUICK = [mode for mode in MODES if not backends.load(mode).features.own_kernel]  # those that start in milliseconds
EACH_QUICK_MODE = pytest.mark.parametrize("mode", QUICK)


@pytest.fixture
def before(guest_root):
    """The state of the host; what a test has left behind is removed for the next one."""
    yield host_state()
    for name in instance.names():
        vmctl("down", name)


def write_spec(tmp_path, name=PREFIX, text="command: [sleep, '1000']\n", *, ports=True):
    """Write a workload file that uses everything that has to be given back."""
    path = tmp_path / f"{name}.yaml"
    lines = "resources: {memory: 128M, pids: 64, cpus: 1}\nfiles: [{path: /etc/leak, content: x}]\n"
    if ports:
        lines += f"ports: ['{free_port()}:8000']\n"
    path.write_text(f"image: tiny\n{lines}{text}")
    return str(path)


@EACH_MODE
def test_the_state_shows_what_runs(before, tmp_path, mode):
    """Else the tests below would prove nothing."""
    ok("up", "--mode", mode, write_spec(tmp_path))
    changed = left_behind(before)
    assert {"mounts", "processes", "cgroups", "files"} <= set(changed)
    assert ("switch_links" in changed) == backends.load(mode).features.own_network
    ok("down", PREFIX)
    assert left_behind(before) == {}


@EACH_MODE
def test_nothing_is_left_after_stop_and_rm(before, tmp_path, mode):
    ok("up", "--mode", mode, write_spec(tmp_path))
    ok("stop", "-t", "1", PREFIX)
    ok("rm", PREFIX)
    assert left_behind(before) == {}


@EACH_MODE
def test_nothing_is_left_after_rm_by_force(before, tmp_path, mode):
    ok("up", "--mode", mode, write_spec(tmp_path))
    ok("rm", "-f", PREFIX)
    assert left_behind(before) == {}


@EACH_MODE
def test_nothing_is_left_after_run(before, mode):
    assert vmctl("run", "--mode", mode, "--name", PREFIX, "tiny", "--", "true").code == 0
    assert left_behind(before) == {}


def test_nothing_is_left_by_children_of_the_workload(before, tmp_path):
    """Orphans in a new session, with closed streams, end with the container."""
    script = "for i in 1 2 3; do setsid sleep 1000 < /dev/null > /dev/null 2>&1 & done; sleep 0.1"
    for mode in QUICK:
        result = vmctl("run", "--mode", mode, "--name", PREFIX, "tiny", "--", "sh", "-c", script)
        assert result.code == 0
        assert left_behind(before) == {}


# Starts that fail


@EACH_QUICK_MODE
@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("command: [no-such-command]", 127, "no-such-command is not in the image"),
        ("command: [/etc/passwd]", 126, "/etc/passwd cannot be executed"),
        ("command: [sh]\nuser: nosuch", 125, "the user nosuch is not in the image"),
        ("command: [sleep, '9']\nready: {log: never, timeout: 100ms}", 124, "was not ready within"),
        ("command: ['false']\nready: {log: never}", 125, "ended with code 1"),
        ("command: [sh]\nvolumes: ['./nowhere:/data']", 125, "nowhere does not exist"),
        ("command: [sh]\nvolumes: ['.:/etc/passwd/x']", 125, "Not a directory"),
        ("command: [sh]\nworkdir: /etc/passwd", 125, "/etc/passwd"),
        ("command: [sh]\nfiles: [{path: /etc/passwd/x}]", 125, "Not a directory"),
        ("command: [sh]\ncontainer: {cap_add: [FLY]}", 125, "there is no capability FLY"),
        ("command: [sh]\nresources: {memory: 99999999T}", 125, "memory"),
    ],
    ids=lambda value: str(value).replace("\n", " ")[:40],
)
def test_nothing_is_left_of_a_start_that_failed(before, tmp_path, mode, text, code, message):
    path = tmp_path / f"{PREFIX}.yaml"
    path.write_text(f"image: tiny\n{text}\n")
    assert message in refused("up", "--mode", mode, str(path), code=code)
    assert left_behind(before) == {}


def test_nothing_is_left_of_a_guest_without_its_command(before, tmp_path):
    path = write_spec(tmp_path, text="command: [no-such-command]\nready: {log: never}\n")
    result = vmctl("up", "--mode", "vm", path)
    assert result.code == 127, result
    assert result.err.splitlines()[-1] == "vmctl: the command no-such-command is not in the image"  # after its progress
    assert left_behind(before) == {}


@EACH_MODE
def test_nothing_is_left_where_the_port_is_taken_meanwhile(before, tmp_path, mode):
    """Free at the check, taken when it is to be published: by the workload's start itself."""
    path = write_spec(tmp_path, text="command: [sleep, '1000']\nready: {exec: ['true']}\n")
    work = workloadfile.load(path)
    with socket.socket() as other:
        backend = backends.load(mode)
        inst = engine.create(work, backend)
        other.bind(("127.0.0.1", work.ports[0].host_port))
        other.listen()
        with inst.locked():
            with pytest.raises(ConflictError, match="is taken by"):
                engine.bring_up(inst, backend)
            removal.remove(inst, backend)
    assert left_behind(before) == {}


def test_what_is_mounted_in_an_instance_is_not_removed_with_it(before, tmp_path):
    """Whatever went wrong before: a volume's content is the user's."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").write_text("x")
    ok("up", write_spec(tmp_path))
    place = instance.load(PREFIX).path("forgotten")
    os.mkdir(place)
    subprocess.run(["mount", "--bind", tmp_path / "data", place], check=True)
    try:
        assert f"{place} is still mounted" in refused("rm", "-f", PREFIX)
        assert (tmp_path / "data/precious").exists()
    finally:
        subprocess.run(["umount", place], check=True)
    ok("rm", "-f", PREFIX)
    assert left_behind(before) == {}


# kill -9 of the command


def up_and_die(path, mode, number, *, made):
    """Start in a process that is killed at its journal entry `number`: announced, or `made` and before the next.

    Return whether it came to that.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    record, count = Journal.record, 0

    def counting(journal, kind, **what):
        nonlocal count
        if made and count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        record(journal, kind, **what)
        count += 1
        if not made and count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.record = counting
    try:
        engine.up(workloadfile.load(path), mode)
    finally:
        os._exit(0)


@EACH_MODE
@pytest.mark.parametrize("made", [False, True], ids=["announced", "made"])
def test_nothing_is_left_after_kill_9_at_each_journal_entry(before, tmp_path, mode, made):
    path, number = write_spec(tmp_path), 1
    while up_and_die(path, mode, number, made=made):
        ok("down", PREFIX)
        assert left_behind(before) == {}, f"killed at entry {number}"
        number += 1
    assert number >= 4
    ok("down", PREFIX)
    assert left_behind(before) == {}


def killed(arguments, after_s, signum=signal.SIGKILL):
    """Start the command, send it a signal after so long, and return its exit code."""
    process = start(*arguments)
    time.sleep(after_s)
    process.send_signal(signum)
    process.communicate(timeout=120)
    return process.returncode


def duration_s(*arguments):
    begin_s = time.monotonic()
    ok(*arguments)
    return time.monotonic() - begin_s


@EACH_QUICK_MODE
def test_nothing_is_left_after_kill_9_at_any_moment(before, tmp_path, mode):
    arguments = ("up", "--mode", mode, write_spec(tmp_path))
    whole_s = duration_s(*arguments)
    ok("down", PREFIX)
    for part in range(4, 24, 2):
        killed(arguments, whole_s * part / 20)
        ok("down", PREFIX)
        assert stays_behind(before) == {}, f"killed after {part}/20 of a start"


def test_nothing_is_left_after_kill_9_of_a_guests_start(before, tmp_path):
    arguments = ("up", "--mode", "vm", write_spec(tmp_path, text="command: [sleep, '1000']\nready: {log: never}\n"))
    for after_s in (0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0):
        killed(arguments, after_s)
        ok("down", "-t", "0", PREFIX)  # it may be too early for a guest to be asked
        assert stays_behind(before) == {}, f"killed after {after_s} s"


def test_nothing_is_left_of_a_directory_half_made(before, tmp_path):
    """Killed between the first file of an instance's directory and the directory's own name."""
    pid = os.fork()
    if pid == 0:
        instance.os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        engine.up(workloadfile.load(write_spec(tmp_path)), "container")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    ok("down", PREFIX)
    assert left_behind(before) == {}


def test_nothing_is_left_of_a_way_out_that_was_not_recorded(before, tmp_path):
    """Killed between the start of the process that becomes pasta and the record of it."""
    pid = os.fork()
    if pid == 0:
        spawn = lobby.spawn
        lobby.spawn = lambda *words: (spawn(*words), os.kill(os.getpid(), signal.SIGKILL))
        engine.up(workloadfile.load(write_spec(tmp_path, text="network: bridge\n")), "container")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    ok("down", PREFIX)
    assert stays_behind(before) == {}


@EACH_QUICK_MODE
def test_nothing_is_left_after_kill_9_of_run(before, mode):
    """The workload ends with the command it is attached to."""
    for after_s in (0.05, 0.1, 0.15, 0.2, 0.3, 0.5):
        killed(("run", "--mode", mode, "--name", PREFIX, "tiny", "--", "sleep", "1000"), after_s)
        ok("down", PREFIX)
        assert stays_behind(before) == {}, f"killed after {after_s} s"


def run_and_die_before_the_tie(mode, reached, go):
    """Run in a process whose workload reports just before prctl(PR_SET_PDEATHSIG), and then waits for `go`."""
    prctl = syscalls.prctl

    def late(option, value):
        if option == syscalls.PR_SET_PDEATHSIG:
            os.write(reached, b"x")
            os.read(go, 1)
        prctl(option, value)

    pid = os.fork()
    if pid == 0:
        syscalls.prctl = late
        try:
            engine.run(Workload(name=PREFIX, image="tiny", command=("sleep", "1000")), mode)
        finally:
            os._exit(0)
    return pid


def test_a_container_whose_command_ended_before_it_was_plugged_ends_too(before):
    """It waits for its network's end, and would wait for ever."""
    reached, reaching = os.pipe()
    pid = os.fork()
    if pid == 0:
        bridge.BridgeNetwork.plug = lambda *_: (os.write(reaching, b"x"), time.sleep(1000))
        try:
            engine.run(Workload(name=PREFIX, image="tiny", command=("sleep", "1000")), "container")
        finally:
            os._exit(0)
    assert os.read(reached, 1) == b"x"
    (workload,) = wait_for(lambda: Cgroup(instance.load(PREFIX).cgroup).pids())
    begun = processes.start_time(workload)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert wait_for(lambda: processes.start_time(workload) != begun)
    os.close(reached)
    os.close(reaching)
    ok("down", PREFIX)
    assert left_behind(before) == {}


@EACH_QUICK_MODE
def test_a_workload_whose_command_ended_before_it_was_tied_to_it_ends_too(before, mode):
    """The kernel sends the signal only if the parent was alive at the time of the call (prctl(2))."""
    reached, reaching = os.pipe()
    go, going = os.pipe()
    pid = run_and_die_before_the_tie(mode, reaching, go)
    assert os.read(reached, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    workload = Cgroup(instance.load(PREFIX).cgroup).pids()
    assert len(workload) == 1
    begun = processes.start_time(workload[0])
    os.write(going, b"x")
    assert wait_for(lambda: processes.start_time(workload[0]) != begun)
    for fd in (reached, reaching, go, going):
        os.close(fd)
    ok("down", PREFIX)
    assert left_behind(before) == {}


@EACH_QUICK_MODE
def test_nothing_is_left_after_kill_9_of_down(before, tmp_path, mode):
    path = write_spec(tmp_path)
    ok("up", "--mode", mode, path)
    whole_s = duration_s("down", "-t", "0", PREFIX)
    for part in range(5, 20, 2):
        ok("up", "--mode", mode, path)
        killed(("down", "-t", "0", PREFIX), whole_s * part / 20)
        ok("down", "-t", "0", PREFIX)
        assert stays_behind(before) == {}, f"killed after {part}/20 of a removal"


# kill -9 of what runs


@EACH_MODE
def test_kill_9_of_what_runs(before, tmp_path, mode):
    """A container's first process, or QEMU."""
    ok("up", "--mode", mode, write_spec(tmp_path))
    os.kill(inspect(PREFIX)["pid"], signal.SIGKILL)
    wait_for(lambda: inspect(PREFIX)["status"] != "running")
    document = inspect(PREFIX)
    assert document["status"] == ("failed" if mode == "vm" else "exited")
    assert document["pid"] is None
    assert (document["exit_code"], document["exit_source"]) in ((137, "signal"), (None, "unknown"))
    ok("down", PREFIX)
    assert left_behind(before) == {}


@EACH_QUICK_MODE
def test_kill_9_of_the_supervisor(before, tmp_path, mode):
    """The workload ends with it; nobody knows its exit code, but all is removed."""
    ok("up", "--mode", mode, write_spec(tmp_path))
    os.kill(instance.load(PREFIX).state.supervisor_pid, signal.SIGKILL)
    wait_for(lambda: inspect(PREFIX)["status"] == "exited")
    assert (inspect(PREFIX)["exit_code"], inspect(PREFIX)["exit_source"]) == (None, "unknown")
    assert f"the exit code of {PREFIX} is unknown" in refused("wait", PREFIX)
    ok("down", PREFIX)
    assert left_behind(before) == {}


@EACH_QUICK_MODE
def test_kill_9_of_everything(before, tmp_path, mode):
    ok("up", "--mode", mode, write_spec(tmp_path))
    pids = [int(line.split(":")[0]) for line in left_behind(before)["processes"]["more"]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL) if processes.start_time(pid) else None
    wait_for(lambda: inspect(PREFIX)["status"] == "exited")
    ok("down", PREFIX)
    assert left_behind(before) == {}


# Ctrl-C, and a polite end of the command


@EACH_QUICK_MODE
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda signum: signum.name)
def test_an_interrupted_up_cleans_up(before, tmp_path, mode, signum):
    text = "command: [sleep, '1000']\nready: {log: never}\n"
    arguments = ("up", "--mode", mode, write_spec(tmp_path, text=text))
    for after_s in (0.1, 0.15, 0.2, 0.3, 0.5):
        code = killed(arguments, after_s, signum)
        assert code in (128 + signum, -signum), f"interrupted after {after_s} s"
        assert stays_behind(before) == {}, f"interrupted after {after_s} s"


@pytest.mark.parametrize("after_s", [0.4, 3.0])
def test_an_interrupted_start_of_a_guest_cleans_up(before, tmp_path, after_s):
    arguments = ("up", "--mode", "vm", write_spec(tmp_path, text="command: [sleep, '1000']\nready: {log: never}\n"))
    assert killed(arguments, after_s, signal.SIGINT) in (130, -signal.SIGINT)
    assert left_behind(before) == {}


@EACH_QUICK_MODE
def test_impatience_does_not_cut_the_cleaning_up_short(before, tmp_path, mode):
    """A Ctrl-C every millisecond: the first one gives up the start, and none of the others what follows it."""
    process = start("up", "--mode", mode, write_spec(tmp_path, text="command: [sleep, '1000']\nready: {log: never}\n"))
    wait_for(lambda: PREFIX in instance.names())
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert process.returncode in (130, -signal.SIGINT)
    assert left_behind(before) == {}


@EACH_QUICK_MODE
def test_an_interrupted_run_cleans_up(before, mode):
    """The first Ctrl-C is the workload's, which here goes on; the second one ends it."""
    script = "trap 'echo again' INT; echo on; while :; do sleep 0.1; done"
    process = start("run", "--mode", mode, "--name", PREFIX, "tiny", "--", "sh", "-c", script)
    assert process.stdout.readline() == b"on\n"
    passes_signals_on(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"again\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 137
    assert left_behind(before) == {}


@EACH_QUICK_MODE
def test_ctrl_c_ends_a_workload_that_listens(before, mode):
    script = "trap 'echo bye; exit 4' INT; echo on; while :; do sleep 0.1; done"
    process = start("run", "--mode", mode, "--name", PREFIX, "tiny", "--", "sh", "-c", script)
    assert process.stdout.readline() == b"on\n"
    passes_signals_on(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120)[0] == b"bye\n"
    assert process.returncode == 4
    assert left_behind(before) == {}


# Two at once


@EACH_QUICK_MODE
def test_many_at_once_with_names_of_their_own(before, tmp_path, mode):
    names = [f"{PREFIX}{number}" for number in range(4)]
    started = [start("up", "--mode", mode, write_spec(tmp_path, name)) for name in names]
    for process in started:
        process.communicate(timeout=120)
    assert [process.returncode for process in started] == [0] * 4
    addresses = [inspect(name)["address"] for name in names]
    assert len(set(addresses)) == (4 if backends.load(mode).features.own_network else 1)
    ending = [start("down", "-t", "0", name) for name in names]
    for process in ending:
        process.communicate(timeout=120)
    assert [process.returncode for process in ending] == [0] * 4
    assert left_behind(before) == {}


@EACH_QUICK_MODE
def test_of_many_with_one_name_one_wins(before, tmp_path, mode):
    path = write_spec(tmp_path, ports=False)
    for _ in range(3):
        started = [start("up", "--mode", mode, path) for _ in range(4)]
        errors = [process.communicate(timeout=120)[1].decode() for process in started]
        assert sorted(process.returncode for process in started) == [0, 125, 125, 125]
        assert sum(f"the name {PREFIX} is taken" in error for error in errors) == 3, errors
        assert inspect(PREFIX)["status"] == "running"
        ending = [start("down", "-t", "0", PREFIX) for _ in range(3)]
        outputs = [process.communicate(timeout=120) for process in ending]
        assert [process.returncode for process in ending] == [0] * 3, outputs
        assert left_behind(before) == {}


def test_commands_that_wait_for_a_start(before, tmp_path):
    """`stop` and `wait`, given while the instance is still being started, mean the one that runs then."""
    starting = start("up", write_spec(tmp_path, text="command: [sleep, '1000']\nready: {exec: [sleep, '0.5']}\n"))
    wait_for(lambda: PREFIX in instance.names())
    waiting, stopping = start("wait", PREFIX), start("stop", "-t", "0", PREFIX)
    assert starting.wait(120) == stopping.wait(120) == 0
    assert waiting.wait(120) in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    assert inspect(PREFIX)["status"] == "exited"
    for process in (starting, waiting, stopping):
        process.communicate()


def test_listing_while_instances_come_and_go(before, tmp_path):
    path = write_spec(tmp_path, ports=False)
    listing = [start("ps", "-a", "--format", "json", stdout=subprocess.DEVNULL) for _ in range(3)]
    for _ in range(4):
        ok("up", path)
        listing += [start("ps", "-a", stdout=subprocess.DEVNULL), start("inspect", PREFIX, stdout=subprocess.DEVNULL)]
        ok("down", "-t", "0", PREFIX)
        listing.append(start("ps", "-a", "-q", stdout=subprocess.DEVNULL))
    for process in listing:
        errors = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 0 or "there is no instance" in errors, errors


def test_every_mode_beside_the_others(before, tmp_path):
    for mode in MODES:
        ok("up", "--mode", mode, write_spec(tmp_path, f"{PREFIX}-{mode}"))
    assert len(ok("ps", "-q").split()) == len(MODES)
    for mode in MODES:
        ok("down", "-t", "1", f"{PREFIX}-{mode}")
    assert left_behind(before) == {}
