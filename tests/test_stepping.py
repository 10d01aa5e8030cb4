"""`up --step` and `run --step`: what each step shows while it waits for Enter, and what Ctrl-C leaves there."""

import os
import re
import subprocess
import sys

import pytest
from support.attack_table import modes
from support.commands import Terminal, ok, passes_signals_on, refused, vmctl, wait_for
from support.host_state import PREFIX, own_state

from vmctl.instances import instance
from vmctl.stepping import changes, kinds
from vmctl.stepping.stage import PROMPT
from vmctl.steps import Step
from vmm import marks, monitor

SPEC = "image: tiny\ncommand: [sleep, '1000']\n"
CONTAINER = (
    "writable layer, clone3, the new process, own mounts, root, pivot_root, file system of the kernel, device, "
    "mask, old root, host name, network, exec"
).split(", ")
HOST = "writable layer, clone3, root, pivot_root, file system of the kernel, exec".split(", ")


class Stage:
    """A start on a terminal that is stopped at a step, or has ended."""

    def __init__(self, *words, user=None, verb="up"):
        self.terminal = Terminal(verb, "--step", *words, user=user)
        self.name, self.did, self.look, self.pid = "", "", "", 0
        self.go_on("")

    def go_on(self, keys="\n"):
        """Type something, and return whether there is a next step."""
        self.terminal.type(keys) if keys else None
        self.terminal.output = ""
        try:
            shown = self.terminal.read_until(PROMPT)
        except AssertionError:
            if PROMPT not in self.terminal.output and "never came" in str(sys.exc_info()[1]):
                return False  # the end of the output
            raise
        self.name = re.findall(r"^ *\d+\. (.*?)\r?$", shown, re.MULTILINE)[-1]
        did = re.findall(r"^ +(?:next|done) (.*)  # process (\d+)\r?$", shown, re.MULTILINE)
        self.did, self.pid = (did[-1][0], int(did[-1][1])) if did else ("", 0)
        self.look = re.findall(r"^ +look (.*?)\r?$", shown, re.MULTILINE)[-1]
        return True

    def go_to(self, name):
        """Let steps happen up to one of this name."""
        while self.name != name:
            assert self.go_on(), f"{name} never came"

    def end(self):
        """Return exit code and the rest of the output."""
        return self.terminal.end()


def looked(caller, command):
    """Return what the command for the second terminal prints."""
    if caller.name == "root":
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr
    return caller.user.run("sh", "-c", command)


def check_steps(mode, names, *, network):
    """Check the names of a start's steps; each process takes its own in order."""
    wanted, rest = CONTAINER if mode == "container" else HOST, iter(names)
    assert all(name in rest for name in wanted if network or name != "network"), names
    if mode == "container":  # the ids are written by its parent, before or after the new process has reported itself
        assert names.index("clone3") < names.index("ids") < names.index("own mounts"), names


@pytest.fixture
def removed(caller):
    """What a failed test has left would be in the way of the next one."""
    yield
    caller.vmctl("rm", "-f", "stage")


@modes("container", "host")
def test_each_step_waits_and_names_what_a_second_terminal_can_look_at(caller, removed, mode):
    network = "bridge" if caller.name == "root" else "none"
    spec = caller.write("stage.yaml", SPEC if mode == "host" else f"{SPEC}network: {network}\n")
    stage = Stage("--mode", mode, "--name", "stage", spec, user=getattr(caller, "user", None))
    names, shown = [], {}
    while True:
        code, out, err = looked(caller, stage.look)
        assert (code, err) == (0, ""), (stage.name, stage.look, out, stage.terminal.output)
        assert out.strip(), (stage.name, stage.look, stage.terminal.output)
        names.append(stage.name)
        shown[stage.name] = out
        if not stage.go_on():
            break
    code, rest = stage.end()
    assert code == 0, rest
    check_steps(mode, names, network=True)
    if mode == "container":
        assert "overlay" in shown["root"]
        assert ("eth0" if network == "bridge" else "lo") in shown["network"]
    assert "Uid:" in shown["exec"]
    assert caller.inspect("stage")["status"] == "running"
    assert caller.ok("exec", "stage", "--", "cat", "/proc/1/comm" if mode == "container" else "/etc/hostname")
    caller.ok("down", "stage")


def test_a_container_is_really_stopped_between_its_steps(own_root, tmp_path):
    (tmp_path / "stage.yaml").write_text(SPEC)
    stage = Stage("--name", "stage", str(tmp_path / "stage.yaml"))
    stage.go_to("clone3")
    supervisor = stage.pid
    assert children(supervisor) == []  # the line is about what comes next
    stage.go_to("the new process")
    (pid,) = children(supervisor)
    assert stage.pid == pid
    assert pid_inside(pid) == "1"
    assert os.path.samefile(f"/proc/{pid}/root", "/")  # no step before this one
    stage.go_to("pivot_root")
    assert not os.path.samefile(f"/proc/{pid}/root", "/")
    assert "/proc" not in own_mounts(pid)
    stage.go_to("file system of the kernel")
    assert own_mounts(pid)[-1] == "/proc"
    stage.go_to("exec")
    assert os.readlink(f"/proc/{pid}/exe") == os.readlink(f"/proc/{supervisor}/exe")
    assert status(pid, "Seccomp") == "0"  # the filter and execve come now
    assert not stage.go_on()
    assert (status(pid, "Seccomp"), status(pid, "Name")) == ("2", "sleep")
    assert stage.end()[0] == 0
    ok("down", "stage")


def status(pid, key):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(line.split(":")[1].strip() for line in file if line.startswith(f"{key}:"))


def pid_inside(pid):
    return status(pid, "NSpid").split()[-1]


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return list(map(int, file.read().split()))


def own_mounts(pid):
    """Return the mount points of a process that are not those of the old root, in the order of the file."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    root = max(rows, key=lambda row: (row[4] == "/" and " overlay " in " ".join(row), int(row[0])))[0]
    return [row[4] for row in rows if row[1] == root]


def interrupted_at_each(mode, path):
    """End a start by Ctrl-C at its first step, another one at its second, and so on; return the steps' names.

    Of steps with the same name, the first is taken.
    """
    before, names = own_state(), []
    while True:
        stage = Stage("--mode", mode, "--name", PREFIX, path)
        while stage.name in names:
            if not stage.go_on():
                assert stage.end()[0] == 0
                ok("down", PREFIX)
                return names
        names.append(stage.name)
        stage.terminal.type("\x03")
        code, shown = stage.end()
        assert code == 130, (names, shown)
        assert "vmctl: interrupted" in shown
        wait_for(lambda: own_state() == before, 20)


@pytest.mark.parametrize("mode", ["container", pytest.param("host", marks=pytest.mark.long)])
def test_ctrl_c_at_each_step_leaves_the_host_as_it_was(own_root, tmp_path, mode):
    (tmp_path / "stage.yaml").write_text(f"{SPEC}network: none\n" if mode == "container" else SPEC)
    ok("run", "--mode", mode, "tiny", "--", "true")  # what a first start makes stays
    names = interrupted_at_each(mode, str(tmp_path / "stage.yaml"))
    check_steps(mode, names, network=False)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["container", "vm"])
def test_ctrl_c_at_each_step_with_a_network(guest_root, tmp_path, mode):
    (tmp_path / "stage.yaml").write_text(SPEC)
    ok("run", "--mode", mode, "tiny", "--", "true")
    names = interrupted_at_each(mode, str(tmp_path / "stage.yaml"))
    assert "place in the switch" in names


def test_a_guest_is_stopped_before_its_first_instruction_and_between_its_phases(guest_root, tmp_path):
    (tmp_path / "stage.yaml").write_text(SPEC)
    before = own_state()
    stage = Stage("--mode", "vm", "--name", PREFIX, str(tmp_path / "stage.yaml"))
    stage.go_to("QEMU, stopped")
    inst = instance.load(PREFIX)
    assert monitor.ask(inst, "query-status")["status"] in ("prelaunch", "paused")
    assert marks.lines(inst) == []
    assert subprocess.run(["sh", "-c", stage.look], check=False, capture_output=True).stdout
    stage.go_on()
    seen = []
    while stage.name == "the guest is stopped":
        assert monitor.ask(inst, "query-status")["status"] == "paused"
        seen.append(marks.lines(inst))
        if seen[-1] and any(line == "mounts" for line in seen[-1]):
            break
        assert stage.go_on()
    assert seen[0][0].startswith("init ")
    shown = subprocess.run(["sh", "-c", stage.look], check=True, capture_output=True, text=True).stdout
    assert "mounts\n" in shown
    stage.terminal.type("\x03")
    assert stage.end()[0] == 130
    wait_for(lambda: not own_state().processes - before.processes and not own_state().mounts - before.mounts)
    assert PREFIX not in instance.names()


@modes("container", "host")
def test_the_command_of_run_has_the_terminal_after_its_last_step(caller, mode):
    script = "read word; echo got $word; exit 7"
    words = ("--mode", mode, *(("--network", "none") if mode == "container" else ()), "tiny", "--", "sh", "-c", script)
    stage = Stage(*words, user=getattr(caller, "user", None), verb="run")
    names = [stage.name]
    while stage.name != "exec":
        assert stage.go_on()
        names.append(stage.name)
    check_steps(mode, names, network=False)
    stage.terminal.type("\n")
    stage.terminal.wait_for("the workload runs as process")
    stage.terminal.type("later\n")
    code, shown = stage.end()
    assert (code, "got later" in shown) == (7, True), shown
    assert PROMPT not in shown  # what is undone waits for nobody
    assert caller.ok("ps", "-aq") == ""


def test_ctrl_c_of_run_takes_the_start_back_and_later_ends_the_command(own_root):
    ok("run", "tiny", "--", "true")
    before = own_state()
    words = ("--name", PREFIX, "--network", "none", "tiny", "--", "sleep", "1000")
    stage = Stage(*words, verb="run")
    stage.go_to("root")
    stage.terminal.type("\x03")
    code, shown = stage.end()
    assert (code, "vmctl: interrupted" in shown) == (130, True), shown
    wait_for(lambda: own_state() == before, 20)
    stage = Stage(*words, verb="run")
    stage.terminal.type("c\n")
    stage.terminal.wait_for("the workload runs as process")
    passes_signals_on(stage.terminal.pid)
    stage.terminal.type("\x03")
    assert stage.end()[0] == 130
    wait_for(lambda: own_state() == before, 20)


def test_a_guest_of_run_ends_with_its_command_after_the_last_step(guest_root):
    stage = Stage("--mode", "vm", "--network", "none", "tiny", "--", "sh", "-c", "echo from inside; exit 7", verb="run")
    stage.go_to("the guest is stopped")
    while stage.go_on():
        assert stage.name == "the guest is stopped"
    code, shown = stage.end()
    assert (code, "from inside" in shown) == (7, True), shown
    assert vmctl("ps", "-aq").out == ""


def test_c_goes_to_the_end(own_root, tmp_path):
    (tmp_path / "stage.yaml").write_text(SPEC)
    stage = Stage("--mode", "host", "--name", "stage", str(tmp_path / "stage.yaml"))
    assert not stage.go_on("c\n")
    assert stage.end()[0] == 0
    ok("down", "stage")


def test_with_verbose_each_line_waits(own_root, tmp_path):
    (tmp_path / "stage.yaml").write_text(SPEC)
    words = ("--mode", "host", "--name", "stage", str(tmp_path / "stage.yaml"))
    stage = Stage("--verbose", *words)
    stage.go_to("other")
    assert stage.did.startswith("mkdir -p ")
    stage.terminal.type("\x03")
    assert stage.end()[0] == 130


def test_a_failed_start_is_undone_without_waiting(own_root, tmp_path):
    (tmp_path / "stage.yaml").write_text("image: tiny\ncommand: [/missing]\n")
    stage = Stage("--mode", "host", "--name", "stage", str(tmp_path / "stage.yaml"))
    while stage.go_on():
        pass
    code, shown = stage.end()
    assert code == 127
    assert "/missing is not in the image" in shown
    assert vmctl("ps", "-aq").out == ""


def test_it_is_refused_if_there_is_nothing_to_wait_for(own_root, tmp_path):
    (tmp_path / "stage.yaml").write_text(SPEC)
    (tmp_path / "stack.yaml").write_text("services: {web: {image: tiny}}\n")
    error = refused("up", "--step", str(tmp_path / "stage.yaml"))
    assert "waits for Enter" in error
    assert "--explain" in error
    assert "one workload" in refused("up", "--step", str(tmp_path / "stack.yaml"))
    for more in ((), ("-d",), ("--pull", "always")):  # before anything is downloaded
        assert "waits for Enter" in refused("run", "--step", *more, "tiny", "--", "true")
    assert vmctl("ps", "-aq").out == ""
    daemon = ("--step", "--mode", "vm", "--connect", "test:///default")
    for words in (("up", *daemon, str(tmp_path / "stage.yaml")), ("run", *daemon, "tiny", "--", "true")):
        code, shown = Terminal(*words).end()
        assert code == 125
        assert "libvirt daemon" in shown


def test_other_starts_do_not_import_it(own_root):
    source = (
        "import sys\nfrom vmctl.cli import main\nmain(sys.argv[1:])\nprint([n for n in sys.modules if 'stepp' in n])"
    )
    words = ("run", "--mode", "host", "tiny", "--", "true")
    done = subprocess.run([sys.executable, "-c", source, *words], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_changes_are_those_of_the_process():
    now = changes.seen(os.getpid())
    assert now["NSpid"]
    assert changes.between(now, now) == []
    other = {**now, "link": (), "CapEff": ("00ff",), "mount": (*now["mount"], *(f"/new{n} (proc)" for n in range(6)))}
    lines = changes.between(now, other)
    assert any(line.startswith("- link: ") for line in lines)
    assert f"CapEff: {now['CapEff'][0]} -> 00ff" in lines
    assert "+ mount: /new0 (proc), /new1 (proc), /new2 (proc), /new3 (proc) and 2 more" in lines
    assert changes.seen(2**22 + 1)["mount"] == ()  # no such process


def test_reasons_are_those_of_explain():
    found = kinds.of("pivot_root . . && hash -r", "", inside=True)
    assert kinds.why(found.kind, [Step("pivot_root", "", "because")]) == "because"
    assert "the host is gone" in kinds.why(found.kind, [])
    assert found.look(7, 8, root=False) == "findmnt -N 7"
    assert kinds.of("pivot_root . .", "", inside=False) is None
    assert kinds.of("rm -rf /", "", inside=True) is None
