"""A command in a running instance: the same streams, codes, words and limits in a container and in a guest."""

import hashlib
import os
import resource
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.commands import VMCTL, Terminal, ok, passes_signals_on, refused, start, vmctl, wait_for

pytestmark = pytest.mark.timeout(200)
ENDLESS = "while :; do sleep 0.1; done"


@pytest.fixture(scope="module", params=["container", "vm"])
def box(request, guest_root, tmp_path_factory):
    """The name of an instance that all tests share; it has no network."""
    spec = tmp_path_factory.mktemp("box") / f"box-{request.param}.yaml"
    spec.write_text("image: tiny\nnetwork: none\ncommand: [sleep, '100000']\nenv: {GREETING: hello}\n")
    assert ok("up", "-q", "--mode", request.param, str(spec)) == f"{spec.stem}\n"
    yield spec.stem
    vmctl("rm", "-f", spec.stem)


def inside(box, *words, flags=(), **options):
    """Run a command with files and pipes as its streams; the streams are bytes."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([VMCTL, "exec", *flags, box, "--", *words], timeout=240, **options)


def test_a_reader_that_leaves_ends_the_command(box):
    with start("exec", box, "--", "yes") as command:
        assert command.stdout.read(10) == b"y\n" * 5
        command.stdout.close()
        assert command.wait(60) == 128 + signal.SIGPIPE
    assert inside(box, "pidof", "yes").returncode == 1


def test_a_reader_that_reads_nothing_stops_only_its_stream(box):
    script = "cat /dev/zero & while :; do echo line >&2; sleep 0.1; done"
    with start("exec", box, "--", "sh", "-c", script) as command:
        for _ in range(20):
            assert command.stderr.readline() == b"line\n"
        assert ok("exec", box, "--", "echo", "another") == "another\n"
        command.kill()


def test_a_killed_exec_ends_its_command(box):
    def runs():
        return inside(box, "sh", "-c", "ps | grep '[s]leep 54321'").returncode == 0

    command = start("exec", box, "--", "sleep", "54321")
    try:
        wait_for(runs, 60)
    finally:
        command.kill()
        command.communicate()
    wait_for(lambda: not runs(), 60)


def test_long_commands_and_environments(box):
    text = "x" * 100_000
    assert ok("exec", box, "--", "sh", "-c", f"echo ok; : {text}") == "ok\n"
    assert ok("exec", "-e", f"BIG={text}", box, "--", "sh", "-c", "echo ${#BIG}") == "100000\n"
    words = [str(number) * 1000 for number in range(300)]
    assert ok("exec", box, "--", "sh", "-c", "echo $#", "sh", *words) == "300\n"


def test_umask_limits_and_cgroup_are_those_of_the_workload(box):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = ok("exec", box, "--", "sh", "-c", "umask; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj")
    assert said.split() == ["0022", str(soft), str(hard), "0"]
    said = ok("exec", box, "--", "grep", "-e", "SigIgn", "-e", "SigBlk", "/proc/self/status")
    assert said.split()[1::2] == ["0" * 16] * 2


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("root", "0 0 0 /root"),
        ("nobody", "65534 65534 65534 /"),
        ("65534", "65534 65534 65534 /"),
        ("1000", "1000 0 0 /"),
        ("1000:33", "1000 33 33 /"),
        ("nobody:root", "65534 0 0 /"),
    ],
)
def test_users(box, user, identity):
    said = ok("exec", "-u", user, box, "--", "sh", "-c", "echo $(id -u) $(id -g) $(id -G) $HOME")
    assert said == f"{identity}\n"


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("{}", "--", "nope"), 127, "the command nope is not in the image"),
        (("{}", "--", "/nope/x"), 127, "the command /nope/x is not in the image"),
        (("{}", "--", "/etc/passwd"), 126, "the command /etc/passwd cannot be executed: Permission denied"),
        (("{}", "--", "/etc"), 126, "the command /etc cannot be executed: Permission denied"),
        (("-u", "nemo", "{}", "--", "id"), 125, "the user nemo is not in the image's /etc/passwd"),
        (("-u", "0:nemo", "{}", "--", "id"), 125, "the group nemo is not in the image's /etc/group"),
        (("-w", "/typo", "{}", "--", "pwd"), 125, "the folder /typo cannot be entered: it does not exist"),
        (("-w", "/etc/passwd", "{}", "--", "pwd"), 125, "/etc/passwd cannot be entered: it is not a folder"),
    ],
)
def test_what_cannot_be_started_is_named(box, words, code, error):
    assert error in refused("exec", *(word.format(box) for word in words), code=code)
    assert "/typo" not in ok("diff", box)


def test_codes(box):
    for script, code in (("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -INT $$", 130)):
        assert inside(box, "sh", "-c", script).returncode == code


def test_the_environment(box, monkeypatch):
    monkeypatch.setenv("FROM_CALLER", "mine")
    script = "echo $GREETING ${FROM_CALLER-unset} ${OTHER-unset}"
    said = ok("exec", "-e", "FROM_CALLER", "-e", "NOT_SET_ANYWHERE", "-e", "OTHER=1", box, "--", "sh", "-c", script)
    assert said == "hello mine 1\n"


def test_binary_streams_arrive_unharmed(box, tmp_path):
    content = os.urandom(3_000_000) + bytes(range(256)) * 100
    (tmp_path / "in").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest().encode()
    with open(tmp_path / "in") as source:
        assert inside(box, "sha256sum", stdin=source).stdout.split()[0] == digest
    seen = subprocess.run([VMCTL, "exec", box, "--", "cat"], input=content, capture_output=True, timeout=240)
    assert (seen.returncode, seen.stdout == content, seen.stderr) == (0, True, b"")


def test_the_next_program_reads_what_the_command_has_not_read(box, tmp_path):
    (tmp_path / "list").write_text("first\nsecond\nthird\n")
    script = 'while read -r line; do "$@" echo "got $line"; done'
    with open(tmp_path / "list") as file:
        command = ["sh", "-c", script, "sh", VMCTL, "exec", box, "--"]
        seen = subprocess.run(command, stdin=file, capture_output=True, text=True)
    assert seen.stdout == "got first\ngot second\ngot third\n"


def test_no_input(box):
    assert inside(box, "cat").stdout == b""
    assert inside(box, "cat", stdin=subprocess.PIPE, flags=["--no-stdin"]).stdout == b""
    closed = subprocess.run(["sh", "-c", f"{VMCTL} exec {box} -- cat <&-"], capture_output=True, timeout=240)
    assert (closed.returncode, closed.stdout) == (0, b"")


def test_both_outputs_to_one_file_keep_their_order(box, tmp_path):
    with open(tmp_path / "log", "w") as log:
        inside(box, "sh", "-c", "for n in 0 1 2 3 4; do echo $n; echo $n >&2; done", stdout=log, stderr=log)
    assert (tmp_path / "log").read_text() == "".join(f"{n}\n{n}\n" for n in range(5))


def test_output_that_cannot_be_written_is_an_error(box):
    with open("/dev/full", "w") as full:
        seen = inside(box, "echo", "lost", stdout=full)
    assert (seen.returncode, seen.stderr[:67]) == (
        125,
        b"vmctl: the output could not be written: No space left on device\nhin",
    )


def test_a_process_that_stays_does_not_keep_exec(box, tmp_path):
    script = "echo begin; (while :; do echo later; sleep 0.1; done) & exit 3"
    with open(tmp_path / "out", "wb") as out:  # a pipe of the caller would stay open in the process
        assert inside(box, "sh", "-c", script, stdout=out, stderr=out).returncode == 3
    assert (tmp_path / "out").read_bytes().startswith(b"begin\n")


def test_twenty_at_once(box):
    with ThreadPoolExecutor(20) as pool:
        seen = pool.map(lambda number: inside(box, "sh", "-c", f"echo {number}; exit {number}"), range(20))
        assert [(one.stdout, one.returncode) for one in seen] == [(b"%d\n" % n, n) for n in range(20)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on(box, signum):
    script = f"trap 'echo got; exit 9' {signum.value}; echo ready; {ENDLESS}"
    with start("exec", box, "--", "sh", "-c", script) as command:
        assert command.stdout.readline() == b"ready\n"
        passes_signals_on(command.pid)
        command.send_signal(signum)
        assert command.stdout.readline() == b"got\n"
        assert command.wait(60) == 9


def test_a_second_interrupt_ends_exec_in_any_case(box):
    with start("exec", box, "--", "sh", "-c", f"trap 'echo again' INT; echo ready; {ENDLESS}") as command:
        assert command.stdout.readline() == b"ready\n"
        passes_signals_on(command.pid)
        command.send_signal(signal.SIGINT)
        assert command.stdout.readline() == b"again\n"
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 128 + signal.SIGKILL


def test_a_terminal(box):
    script = "tty; echo $TERM; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.1; done"
    terminal = Terminal("exec", "-t", box, "--", "sh", "-c", script)
    terminal.read_until("ready")
    terminal.resize(40, 120)
    code, output = terminal.end()
    assert code == 5
    lines = output.split()
    assert lines[0].startswith("/dev/pts/")
    assert lines[1:] == ["xterm", "ready", "40", "120"]


def test_ctrl_d_and_ctrl_c_on_a_terminal(box):
    terminal = Terminal("exec", "-t", box, "--", "sh", "-c", "echo ready; cat; echo end; sleep 1000")
    terminal.read_until("ready")
    terminal.type("text\r\x04")
    terminal.read_until("end")
    terminal.type("\x03")
    assert terminal.end()[0] == 128 + signal.SIGINT
