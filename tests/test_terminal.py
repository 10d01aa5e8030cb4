"""Terminals: `attach`, `run -t`, `exec -t` and `console`, in every mode, as root and as an ordinary user."""

import hashlib
import json
import os
import signal
import subprocess
import time

import pytest
from support.attack_table import callers, modes
from support.commands import VMCTL, Terminal, passes_signals_on, wait_for

from vmctl.attach.keys import Keys, parse
from vmctl.attach.modes import Modes
from vmctl.errors import SpecError
from vmctl.linux import processes

pytestmark = pytest.mark.timeout(600)
DETACH = "\x10\x11"


@pytest.fixture(scope="module", params=["container", "host", "vm"])
def mode(request):
    return request.param


class Seat:
    """A running instance whose command is a shell on a terminal."""

    def __init__(self, caller, mode):
        self.caller, self.mode, self.name, self._said = caller, mode, f"seat-{mode}", 0
        self.user = getattr(caller, "user", None)
        path = caller.write(f"{self.name}.yaml", json.dumps({"image": "tiny", "command": ["sh"], "tty": True}))
        caller.ok("up", "-q", "--mode", mode, path)

    def attach(self, *flags):
        """Attach, and wait for the shell."""
        terminal = Terminal("attach", *flags, self.name, user=self.user)
        self.say(terminal, ":")
        return terminal

    def say(self, terminal, line):
        """Type a line for the shell and return all output up to its end."""
        self._said += 1
        terminal.output = ""
        terminal.type(f"{line}; echo E''ND{self._said}.\n")
        return terminal.read_until(f"END{self._said}.")

    def runs(self, command):
        """Return whether a command runs inside; in mode host, those of the host are seen too."""
        return command in self.caller.ok("exec", "-T", self.name, "--", "ps", "-o", "args").splitlines()

    def leave(self, terminal):
        """Type the keys, and return the rest of the output."""
        terminal.output = ""
        terminal.type(DETACH)
        code, output = terminal.end()
        assert code == 0
        assert f"vmctl: {self.name} runs on; `vmctl attach {self.name}` connects again" in output
        assert self.caller.inspect(self.name)["status"] == "running"
        return output


@pytest.fixture(scope="module")
def seat(caller, mode):
    seat = Seat(caller, mode)
    yield seat
    caller.vmctl("rm", "-f", seat.name)


def test_keys():
    assert parse("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse("a,ctrl-],ctrl-@") == b"a\x1d\x00"
    assert parse("none") == parse("") == b""
    with pytest.raises(SpecError, match="'ctrl-' cannot be a key to detach"):
        parse("ctrl-")
    keys = Keys(b"\x10\x11")
    assert [keys.feed(part) for part in (b"ab\x10", b"c\x10", b"\x10", b"\x11rest")] == [b"ab", b"\x10c", b"\x10", b""]
    assert keys.complete
    assert (keys.feed(b"\x10"), keys.release(), keys.release()) == (b"", b"\x10", b"")


@pytest.mark.parametrize(
    ("output", "undone"),
    [
        (b"plain \xc3\xa9", b""),
        (b"\x1b[?1049h\x1b[?25l\x1b[38;2;1;2;3mX", b"\x1b[0m\x1b[?1049l\x1b[?25h"),
        (b"\x1b[?1049h\x1b[?25l\x1b[?25h\x1b[?1049l\x1b[31mX\x1b[0m", b""),
        (b"\x1b[?1000;1006h\x1b=", b"\x1b[?1000l\x1b[?1006l\x1b>"),
        (b"\x1b[?2004h\x1bc", b""),
        (b"\x1b[?12h\x1b[2J", b""),
        (b"\x1b]0;title\x07\x1bP1$r\x1b\\\x1b[2Jx", b""),
        (b"\x1b[?25l\x1b]52;c;cm0gLXJm", b"\x18\x1b[?25h"),
        (b"\x1bPx\x1b", b"\x18"),
        (b"\x1bP\x1bcx\x1b[12;", b"\x18"),
    ],
)
@pytest.mark.parametrize("part_bytes", [1, 3, 1000])
def test_what_is_left_switched_on(output, undone, part_bytes):
    modes = Modes()
    for begin in range(0, len(output), part_bytes):
        modes.see(output[begin : begin + part_bytes])
    assert modes.undo() == undone


def test_attach(seat):
    """Size, colours, UTF-8, signals and jobs; the state of the shell stays when its caller leaves."""
    terminal = seat.attach()
    wait_for(lambda: "30 100" in seat.say(terminal, "stty size"))  # the size of a guest takes another way than keys
    terminal.resize(44, 133)
    wait_for(lambda: "44 133" in seat.say(terminal, "stty size"))
    assert "xterm" in seat.say(terminal, "kept=42; echo $TERM; tty")
    said = seat.say(terminal, "printf '\\033[38;2;10;20;30m\\303\\274\\033[0m\\n'")
    assert "\x1b[38;2;10;20;30m\u00fc\x1b[0m" in said
    terminal.type("stty -echo; echo go''on; head -n 1; stty echo\n")
    terminal.read_until("goon")
    terminal.type("\u00fc\u20ac\U0001f600\n")
    terminal.read_until("\u00fc\u20ac\U0001f600")
    command = f"sleep {100_000 + os.getpid()}"  # no other test has the same
    for key, said in (("\x03", ""), ("\x1a", "Stopped")):
        terminal.output = ""
        terminal.type(f"echo beg''un; {command}\n")
        terminal.read_until("begun")
        wait_for(lambda: seat.runs(command))  # before that, the key would be for the shell
        terminal.type(key)
        terminal.read_until(said)
        seat.say(terminal, ":")
    assert command in seat.say(terminal, "jobs")
    seat.say(terminal, "kill -9 %1; wait")
    seat.leave(terminal)
    terminal = seat.attach("--detach-keys", "ctrl-x,d")
    assert "is 42" in seat.say(terminal, "echo is $kept")
    terminal.type("\x18d")
    assert terminal.end()[0] == 0


def test_two_callers_see_the_same(seat):
    one, other = seat.attach(), seat.attach()
    one.type("echo from $((20 + 22))\n")
    assert "from 42" in other.read_until("from 42")
    for terminal in (one, other):
        seat.leave(terminal)


def test_a_paste_of_100_kb(seat):
    lines = b"".join(b"%06d %s\n" % (number, b"\xc3\xa9" * 20) for number in range(2100))
    assert len(lines) > 98_000
    terminal = seat.attach()
    terminal.output = ""
    terminal.type("stty -echo; echo go''on; head -n 2100 | md5sum; stty echo\n")
    terminal.read_until("goon")
    terminal.paste(lines)
    terminal.read_until(hashlib.md5(lines).hexdigest())
    seat.say(terminal, ":")
    seat.leave(terminal)


def test_what_is_left_behind_is_switched_off(seat):
    terminal = seat.attach()
    seat.say(terminal, "printf '\\033[?1049h\\033[?25l\\033[31m'")
    left = seat.leave(terminal)
    assert "\x1b[?1049l" in left
    assert "\x1b[?25h" in left
    assert "\x1b[0m" in left
    terminal = seat.attach()
    seat.say(terminal, "printf '\\033[?1049l\\033[?25h\\033[0m'")
    seat.leave(terminal)


@pytest.mark.parametrize("how", ["detach", "TERM", "HUP", "closed"])
def test_the_callers_terminal_and_the_workload_after_the_end_of_attach(seat, how):
    """The modes of the terminal are those of before, and the workload runs on."""
    script = f"stty -g; {VMCTL} attach {seat.name}; "
    terminal = Terminal("-c", script + "echo code $?; stty -g; sleep 1000", program="/bin/sh", user=seat.user)
    before = terminal.read_until("\n").strip()
    seat.say(terminal, ":")
    if how == "closed":
        os.close(terminal.fd)
        assert os.waitpid(terminal.pid, 0)
    else:
        terminal.output = ""
        if how == "detach":
            terminal.type(DETACH)
        else:
            ours = ("pgrep", "-s", str(terminal.pid), "-f", f"attach {seat.name}$")
            pid = subprocess.run(ours, capture_output=True, text=True, check=True)
            os.kill(int(pid.stdout.split()[-1]), getattr(signal, f"SIG{how}"))
        terminal.read_until("code ")
        terminal.read_until(before)
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.end()
    seat.leave(seat.attach())


def test_kill_9_of_attach(seat):
    terminal = seat.attach()
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.end()
    seat.leave(seat.attach())


@modes("container")
@callers("root")
def test_a_caller_that_reads_nothing_does_not_stop_the_workload(seat):
    """After a while it is dropped. This takes 10 s, and is the same code in each mode."""
    terminal = seat.attach()
    os.kill(terminal.pid, signal.SIGSTOP)
    try:
        other = seat.attach()
        other.type("yes | head -n 400000 | md5sum | tr a-z A-Z; yes | head -n 400000; echo $((6*7)) at last\n")
        other.read_until("42 at last")
        seat.leave(other)
    finally:
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.end()


def test_exec_on_a_terminal(seat):
    terminal = Terminal("exec", "-t", seat.name, "--", "sh", user=seat.user)
    terminal.read_until("# ")
    terminal.type("stty size; sleep 2; touch /tmp/gone-on; sleep 1000\n")
    terminal.read_until("30 100")
    terminal.type(DETACH)
    code, output = terminal.end()
    assert (code, f"vmctl: sh runs on in {seat.name}" in output) == (0, True)
    wait_for(lambda: seat.caller.vmctl("exec", "-T", seat.name, "--", "test", "-e", "/tmp/gone-on").code == 0)
    terminal = Terminal(
        "exec",
        "-t",
        "--detach-keys",
        "none",
        seat.name,
        "--",
        "sh",
        "-c",
        "stty -echo; echo goon; cat -v",
        user=seat.user,
    )
    terminal.read_until("goon")
    terminal.type(f"{DETACH}\n")
    terminal.read_until("^P")
    terminal.type("\x03")
    assert terminal.end()[0] == 130


def test_tmux(seat, tmp_path):
    """A real terminal: its size, a change of its size, and its alternate screen after the keys."""
    tmux = ["tmux", "-L", f"vmctl-{os.getpid()}-{seat.mode}", "-f", "/dev/null"]
    words, options = seat.user.command(VMCTL) if seat.user else ([VMCTL], {"env": os.environ})
    words = [word.replace("/proc/self/", f"/proc/{os.getpid()}/") for word in words]  # tmux inherits no descriptor
    options["env"] = {**options["env"], "TMUX_TMPDIR": str(tmp_path), "TERM": "xterm-256color"}

    def run(*more):
        return subprocess.run([*tmux, *more], capture_output=True, text=True, check=True, **options).stdout

    def shows(text):
        wait_for(lambda: text in run("capture-pane", "-p"))

    def has_size(text):
        def asked():
            run("send-keys", "stty size", "Enter")
            time.sleep(0.2)
            return text in run("capture-pane", "-p")

        wait_for(asked)

    run(
        "new-session", "-d", "-x", "90", "-y", "20", " ".join([*words, "attach", seat.name]) + "; echo left; sleep 1000"
    )
    try:
        run("send-keys", "clear; printf '\\303\\274\\342\\202\\254\\n'", "Enter")
        shows("ü€")
        has_size("20 90")
        run("resize-window", "-x", "101", "-y", "33")
        has_size("33 101")
        run("send-keys", "printf '\\033[?1049h\\033[?25l'; echo inside", "Enter")
        wait_for(lambda: run("display", "-p", "#{alternate_on}#{cursor_flag}") == "10\n")
        run("send-keys", "C-p", "C-q")
        shows("left")
        assert run("display", "-p", "#{alternate_on}#{cursor_flag}") == "01\n"
    finally:
        run("kill-server")
    terminal = seat.attach()
    seat.say(terminal, "printf '\\033[?1049l\\033[?25h'")
    seat.leave(terminal)


def test_console(seat):
    """A guest has a serial console; the only terminal of others is that of the workload."""
    terminal = Terminal("console", seat.name, user=seat.user)
    terminal.read_until(f"vmctl: the console of {seat.name}; ctrl-] leaves")
    if seat.mode == "vm":
        reader = seat.caller.start("exec", "-T", seat.name, "--", "sh", "-c", "exec </dev/ttyS0; echo open; head -n 1")
        assert reader.stdout.readline() == b"open\n"
        terminal.type("typed at the console\r")
        assert b"typed at the console" in reader.communicate(timeout=120)[0]
        ok = seat.caller.ok("exec", "-T", seat.name, "--", "sh", "-c", "echo written >/dev/ttyS0; echo done")
        assert ok == "done\n"
        terminal.read_until("written")
    else:
        terminal.type("echo $((6*7))\n")
        terminal.read_until("42")
    terminal.type("\x1d")
    assert terminal.end()[0] == 0
    seat.leave(seat.attach())


def test_the_end_of_the_workload(seat):
    """The last test with this instance: each caller gets its exit code."""
    one, other = seat.attach(), seat.attach()
    one.type("echo $((6*7)); exit 7\n")
    assert one.end()[0] == 7
    assert other.end()[0] == 7
    assert "is not running" in seat.caller.refused("attach", seat.name)
    wait_for(lambda: "42" in seat.caller.ok("logs", seat.name))  # what was shown is logged


@pytest.fixture
def run_on_terminal(caller, mode):
    """Start `vmctl run -t` in this mode."""
    user = getattr(caller, "user", None)
    network = ["--network", "none"] if mode != "host" else []

    def run(*flags, command):
        words = ("run", "-it", "--mode", mode, *network, "--name", f"own-{mode}", *flags, "tiny", "--", *command)
        return Terminal(*words, user=user)

    yield run
    caller.vmctl("rm", "-f", f"own-{mode}")


def test_run_on_a_terminal(run_on_terminal, caller, mode):
    """Its streams, its exit code, and the keys: it runs on, is logged, and can be attached again."""
    script = (
        "tty; stty size; echo $TERM; while read -r line; do case $line in end) exit 6 ;; *) echo got $line; esac; done"
    )
    terminal = run_on_terminal(command=("sh", "-c", script))
    terminal.read_until("xterm")
    assert "/dev/pts/" in terminal.output
    assert "30 100" in terminal.output
    terminal.type("typed\n")
    terminal.read_until("got typed")
    terminal.type(DETACH)
    code, output = terminal.end()
    assert (code, "runs on" in output) == (0, True)
    assert caller.inspect(f"own-{mode}")["status"] == "running"
    terminal = Terminal("attach", f"own-{mode}", user=getattr(caller, "user", None))
    terminal.type("again\n")
    terminal.read_until("got again")
    terminal.type("end\n")
    assert terminal.end()[0] == 6
    assert caller.inspect(f"own-{mode}")["exit_code"] == 6
    wait_for(lambda: "got typed" in caller.ok("logs", f"own-{mode}"))


def test_run_ends_with_its_owner(run_on_terminal, caller, mode):
    """A workload in the foreground does not outlive a command that is killed; a guest may still boot."""
    terminal = run_on_terminal("--keep", command=("sh", "-c", "trap '' HUP; echo ready; sleep 1000"))
    name = f"own-{mode}"
    wait_for(lambda: name in caller.ok("ps", "-a", "-q") and caller.inspect(name)["pid"])
    if mode != "vm":
        terminal.read_until("ready")
    pid = caller.inspect(name)["pid"]
    began = processes.start_time(pid)
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.end()
    wait_for(lambda: caller.inspect(name)["status"] == "exited")
    assert not processes.alive(pid, began)
    assert (caller.inspect(name)["exit_code"], caller.inspect(name)["exit_source"]) == (137, "signal")


def test_an_open_input(caller, mode):
    """`stdin_open` without a terminal: what each caller sends, and the output of both streams."""
    path = caller.write("open.yaml", json.dumps({"image": "tiny", "command": ["cat"], "stdin_open": True}))
    caller.ok("up", "-q", "--mode", mode, "--name", f"open-{mode}", path)
    try:
        for text in (b"first\n", b"second\n"):
            process = caller.start("attach", f"open-{mode}")
            process.stdin.write(text)
            process.stdin.flush()
            assert process.stdout.readline() == text
            process.send_signal(signal.SIGHUP)
            assert process.wait(60) == 128 + signal.SIGHUP
        wait_for(lambda: caller.ok("logs", f"open-{mode}") == "first\nsecond\n")
        process = caller.start("attach", "--no-stdin", f"open-{mode}")
        passes_signals_on(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (137, 143)
    finally:
        caller.vmctl("rm", "-f", f"open-{mode}")


def test_what_is_refused(caller):
    said = caller.refused("run", "-t", "--detach-keys", "ctrl-", "tiny", "true")
    assert "'ctrl-' cannot be a key to detach" in said
    assert "hint: keys are letters and ctrl-LETTER" in said
    assert "nobody" in caller.refused("attach", "nobody")
