"""Every verb, run by the installed console script with pipes or a terminal as its streams."""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from support.commands import VMCTL, Terminal, free_port, get, ok, passes_signals_on, refused, start, vmctl, wait_for
from support.host_state import host_state, left_behind

from vmctl import __version__, backends, paths
from vmctl.cli import VERBS, aliases, bench, completing, image, output, parse, resolved
from vmctl.cli.commands import commands, flags
from vmctl.instances import instance
from vmctl.programs import which

WEB = """
image: tiny
command: [sh, -c, 'for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; exec httpd -f -p 8000 -h /srv']
files: [{{path: /srv/index.html, content: hello}}]
ports: ["{port}:8000"]
ready: {{http: 8000/}}
"""
LONG = "a-long-name." + "x" * 51  # 63 characters, the maximum
PS_KEYS = [
    "name",
    "mode",
    "status",
    "image",
    "pid",
    "address",
    "ports",
    "created",
    "ready_s",
    "exit_code",
    "exit_source",
    "exit_reporter",
    "oom_kills",
    "oom_reporter",
    "health",
    "restarts",
    "reason",
]


def write(folder, name, text):
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def web(guest_root, tmp_path_factory):
    """A container `web` that has written to its logs; yields its published port."""
    port = free_port()
    ok("up", write(tmp_path_factory.mktemp("web"), "web", WEB.format(port=port)))
    yield port
    vmctl("down", "web")


# Calls


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    result = vmctl(verb, "--help")
    assert result.code == 0
    assert result.out.startswith(f"usage: vmctl {verb}")
    assert VERBS[verb].split()[0] in result.out.lower()
    assert_example(result.out, verb)


def assert_example(text, call):
    """Check that a help text ends with an example of the call, and that the parser accepts the example."""
    example = re.search(rf"\nexample:\n  .*?(vmctl {call}\b[^)\n]*)\)?\n$", text)[1]
    verb, *words = shlex.split(example)[1:]
    assert parse(verb, words)


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_every_verb(word):
    result = vmctl(word)
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines() if line.startswith("  ")] == list(VERBS)


def test_version():
    assert ok("--version") == f"vmctl {__version__}\n"


def test_no_verb_at_all():
    result = vmctl()
    assert (result.code, result.out) == (125, "")
    assert "Usage" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stert",), "there is no verb stert"),
        (("swarm", "init"), "there is no verb swarm"),
        (("lgos", "web"), "did you mean `vmctl logs`?"),
        (("--frobnicate",), "there is no verb --frobnicate"),
        (("ps", "--frobnicate"), "unrecognized arguments: --frobnicate"),
        (("ps", "--format", "xml"), "invalid choice: 'xml'"),
        (("up",), "required: SPEC"),
        (("run",), "required: IMAGE\n"),
        (("stop", "-t", "soon", "x"), "expected a duration"),
        (("exec", "no-such"), "no command was given"),
        (("kill", "-s", "NOSUCH", "x"), "there is no signal NOSUCH"),
        (("kill", "-s", "999", "x"), "there is no signal 999"),
        (("run", "-m", "many", "tiny"), "--memory: expected a size"),
        (("run", "-p", "eighty", "tiny"), "--publish: expected a port"),
        (("run", "-v", "nothing", "tiny"), "--volume: expected a volume"),
        (("run", "--name", "../up", "tiny"), "cannot be used"),
        (("run", "--mode", "jail", "tiny"), "there is no mode jail"),
        (("completion", "tcsh"), "invalid choice"),
        (("image",), "required: ACTION"),
        (("image", "lss"), "invalid choice: 'lss'"),
        (("image", "frobnicate"), "hint: `vmctl image --help` lists the actions\n"),
        (("lab", "rest"), "hint: `vmctl lab --help` lists the actions\n"),  # not `reset`, which removes
        (("completion",), "required: SHELL\n"),
        (("image", "ls", "--frobnicate"), "usage: vmctl image ls [-h]"),
        (("image", "kernel"), "required: ls|fetch|add|rm"),
        (("image", "kernel", "ls", "--frobnicate"), "usage: vmctl image kernel ls [-h]"),
        (("image", "rm"), "required: NAME"),
        (("bench",), "bench needs a workload file"),
        (("bench", "x.yaml", "--frobnicate"), "usage: vmctl bench run [-h]"),
        (("bench", "compare", "x.json"), "required: B.json"),
        (("bench", "--peers", "x"), "unrecognized arguments: x"),
        (("image", "history"), "required: NAME"),
        (("df", "x"), "unrecognized arguments: x"),
        (("prune", "--volumes"), "unrecognized arguments: --volumes"),
        (("commit", "x"), "required: IMAGE"),
        (("diff",), "required: NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_calls(own_root, words, message):
    result = vmctl(*words)
    assert (result.code, result.out) == (125, "")
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("verb", "action"), [("image", name) for name in image.ACTIONS] + [("bench", name) for name in bench.ACTIONS]
)
def test_every_action_has_help(verb, action):
    text = ok(verb, action, "--help")
    assert text.startswith(f"usage: vmctl {verb} {action} ")
    assert {"image": image, "bench": bench}[verb].ACTIONS[action].split()[0] in text.lower()
    assert re.search(rf"^    {action}\b", ok(verb, "--help"), re.MULTILINE)
    assert_example(text, verb if action == "run" else f"{verb} {action}")


@pytest.mark.parametrize("verb", ["inspect", "logs", "stop", "kill", "wait", "rm", "shell", "diff"])
def test_no_such_instance(own_root, verb):
    for name in ("nobody", "../../etc", "", ".", "a/b", "x" * 300):
        assert "there is no instance" in refused(verb, name)


def test_no_such_image_is_named_with_the_nearest(own_root):
    assert "tiny" in refused("run", "tinny", "--", "true")


# Lists


def test_empty_lists(empty_root):
    assert ok("ps").split() == [key.upper() for key in PS_KEYS[:8]] + ["READY"]
    assert ok("ps", "-q") == ""
    assert json.loads(ok("ps", "--format", "json")) == []
    assert ok("ps", "--format", "jsonl") == ""
    assert ok("down", "nobody") == ""
    assert json.loads(ok("image", "ls", "--format", "json")) == []
    assert ok("image", "ls").split() == ["NAME", "TAG", "ID", "KIND", "SIZE", "CREATED"]
    assert ok("image", "ls", "-aq") == ""
    assert ok("image", "prune", "-f", "--format", "jsonl") == ""


def test_ps_as_json(web):
    (row,) = json.loads(ok("ps", "--format", "json"))
    assert list(row) == PS_KEYS
    assert [json.loads(line) for line in ok("ps", "--format", "jsonl").splitlines()] == [row]
    assert (row["name"], row["status"], row["exit_code"], row["exit_source"]) == ("web", "running", None, None)
    assert row["ports"] == [f"127.0.0.1:{web}->8000/tcp"]
    assert 0 < row["ready_s"] < time.time() - row["created"] + 1
    os.kill(row["pid"], 0)


def test_ps_as_table(web):
    title, row = ok("ps").splitlines()
    assert title.index("IMAGE") == row.index("tiny")
    assert "8000/tcp" in row
    assert ok("ps", "-q") == "web\n"


def test_no_colour_in_a_pipe(web):
    for words in (("ps",), ("--help",), ("doctor",), ("image", "ls"), ("inspect", "web"), ("logs", "web")):
        assert "\x1b" not in "".join(vmctl(*words, env={**os.environ, "FORCE_COLOR": "1"})[1:])


def test_table_on_a_terminal(web):
    code, output = Terminal("ps").end()
    assert code == 0
    assert "web" in output
    assert "\x1b[1m" in output
    code, output = Terminal("ps", env={"NO_COLOR": "1"}).end()
    assert code == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", output)


def test_the_longest_name(own_root):
    assert len(LONG) == 63
    assert ok("run", "--name", LONG, "tiny", "--", "hostname") == f"{LONG}\n"
    assert "cannot be used" in refused("run", "--name", LONG + "x", "tiny", "--", "hostname")


def test_inspect(web):
    (document,) = json.loads(ok("inspect", "web"))
    assert list(document)[: len(PS_KEYS)] == PS_KEYS
    assert {"workload", "workload_digest", "image_digest", "accelerator", "marks_s", "footprint"} <= set(document)
    assert document["workload"]["files"][0]["content"] == "hello"
    assert len(json.loads(ok("inspect", "web", "web"))) == 2


# stdout and stderr


def test_up_prints_the_name_to_stdout_and_the_rest_to_stderr(own_root, tmp_path):
    path = write(tmp_path, "quiet", "image: tiny\ncommand: [sleep, '1000']\n")
    result = vmctl("up", path)
    assert (result.code, result.out) == (0, "quiet\n")
    assert "quiet is started in mode container" in result.err
    ok("down", "quiet")
    result = vmctl("up", "-q", path)
    assert (result.code, result.out, result.err) == (0, "quiet\n", "")
    assert ok("down", "quiet") == "quiet\n"


INTERRUPTED_IMPORT = """
import os, signal, sys
from vmctl import cli

class Finder:
    def find_spec(self, name, *_):
        if name == "vmctl.spec.specfields":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
print(cli.main(["spec", "check", "nowhere.yaml"]), hasattr(sys.modules.get("vmctl.spec.specfields"), "STRUCTS"))
"""


def test_a_signal_waits_until_a_verb_is_imported():
    """Its exception could be lost there, and msgspec crashes if it is interrupted while it defines a type."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("130 True\n", "vmctl: interrupted\n")


def test_errors_have_a_traceback_only_with_debug(own_root):
    assert "Traceback" not in refused("inspect", "nobody")
    result = vmctl("--debug", "inspect", "nobody")
    assert result.code != 0
    assert "Traceback" in result.err
    assert "NoSuchInstance" in result.err


def test_spec_check_and_schema(tmp_path):
    good, bad = write(tmp_path, "good", "image: tiny\n"), write(tmp_path, "bad", "imge: tiny\n")
    assert "good, image tiny, sha256:" in ok("spec", "check", good)
    assert f"{bad}: the key imge is unknown" in refused("spec", "check", bad)
    assert json.loads(ok("spec", "schema"))["title"] == "vmctl workload"


# Streams


def test_run_in_a_pipe():
    assert ok("run", "tiny", "--", "cat", stdin="hi\n") == "hi\n"
    assert ok("run", "-i", "tiny", "cat", stdin="hi\n") == "hi\n"  # as with docker, `--` can be left out
    assert ok("run", "tiny", stdin="echo from a script\n") == "from a script\n"  # the image's command is a shell


def test_run_passes_every_byte(own_root):
    content = os.urandom(3_000_000)
    done = subprocess.run([VMCTL, "run", "tiny", "--", "cat"], input=content, stdout=subprocess.PIPE, check=True)
    assert done.stdout == content


def test_run_has_the_callers_variables(own_root):
    output = ok(
        "run",
        "-e",
        "A=b=c",
        "-e",
        "FROM_HERE",
        "-e",
        "NOWHERE",
        "tiny",
        "--",
        "env",
        env={**os.environ, "FROM_HERE": "x y"},
    )
    variables = dict(line.split("=", 1) for line in output.splitlines())
    assert {"A", "FROM_HERE", "PATH", "HOME"} <= set(variables) <= {"A", "FROM_HERE", "NOWHERE", "PATH", "HOME"}
    assert (variables["A"], variables["FROM_HERE"]) == ("b=c", "x y")


def test_run_publishes_ports_and_volumes(own_root, tmp_path):
    port = free_port()
    (tmp_path / "index.html").write_text("from a volume")
    command = ("httpd", "-f", "-p", "80", "-h", "/www")
    process = start("run", "--name", "www", "-p", f"{port}:80", "-v", f"{tmp_path}:/www:ro", "tiny", "--", *command)

    def answer():
        try:
            return get(port)
        except OSError:
            return None

    assert wait_for(answer) == (200, "from a volume")
    ok("kill", "www")
    process.communicate(timeout=120)
    assert process.returncode == 137


def test_a_broken_pipe_prints_no_error(web):
    done = subprocess.run(
        f"set -o pipefail; {VMCTL} logs web | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, code = done.stdout.splitlines()
    assert first == "line 1"
    assert code in ("0", "141")  # 141 if the lines came after head had exited
    assert "Traceback" not in done.stderr
    process = start("ps", stdout=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(120) in (0, 141)
    assert b"Traceback" not in errors
    assert b"Exception" not in errors


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_stream_that_is_closed(own_root, closed):
    """The first file opened would otherwise get its number, and the output would be written to it."""
    script = f'exec {closed}>&-; exec "$@"'
    words = [VMCTL, "run", "tiny", "--", "sh", "-c", "echo out; echo err >&2; exit 5"]
    done = subprocess.run(["sh", "-c", script, "sh", *words], capture_output=True, text=True)
    expected = {1: "out\n", 2: "err\n"} | {closed: ""}
    assert (done.returncode, done.stdout, done.stderr) == (5, expected[1], expected[2])
    done = subprocess.run(["sh", "-c", script, "sh", VMCTL, "ps", "-q"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_arguments_that_are_not_utf8(own_root):
    words = [VMCTL.encode(), b"run", b"-e", b"A=\xfe", b"tiny", b"--", b"sh", b"-c", b"echo $A $1", b"sh", b"\xff"]
    assert subprocess.run(words, capture_output=True, check=True).stdout == b"\xfe \xff\n"


@pytest.mark.alone
@pytest.mark.parametrize("mode", backends.modes())
def test_state_in_a_folder_with_an_odd_name(tmp_path, monkeypatch, mode):
    """Each of these characters is special for mount, overlayfs, mountinfo, libvirt's URI or QEMU's arguments."""
    comma = "" if backends.load(mode).features.own_kernel else ","  # libvirt's probe of QEMU does not escape it
    with tempfile.TemporaryDirectory(prefix=f"a b{comma}c:d\\e%f#g&é-") as root:
        images = paths.images_root()
        monkeypatch.setenv("VMCTL_ROOT", root)
        os.makedirs(paths.state_root())
        os.symlink(images, paths.images_root())
        before = host_state()
        assert ok("run", "--mode", mode, "tiny", "--", "echo", "found") == "found\n"
        assert {**left_behind(before), "files": None} == {"files": None}  # vm mode keeps a cache
        assert os.listdir(paths.instances_root()) == []


# Logs


def test_logs(web):
    lines = [f"line {number}\n" for number in range(1, 6)]
    assert vmctl("logs", "web")[1:] == ("".join(lines), "oops\n")
    assert ok("logs", "--tail", "2", "web") == "".join(lines[-2:])
    assert ok("logs", "--tail", "0", "web") == ""
    assert ok("logs", "--tail", "99", "web") == "".join(lines)
    assert "expected 0 or more" in refused("logs", "--tail", "-1", "web")
    assert "mode container boots no kernel" in refused("logs", "--boot", "web")


def test_logs_can_be_followed(own_root, tmp_path):
    script = "for i in 1 2 3; do echo $i; sleep 0.3; done"
    ok("up", write(tmp_path, "counter", f"image: tiny\ncommand: [sh, -c, '{script}']\n"))
    assert ok("logs", "-f", "counter", timeout_s=120) == "1\n2\n3\n"
    assert ok("logs", "-f", "counter", timeout_s=120) == "1\n2\n3\n"  # it has exited: nothing to wait for
    ok("down", "counter")


def test_ctrl_c_ends_following(web):
    process = start("logs", "-f", "web")
    assert process.stdout.readline() == b"line 1\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130


# A terminal


def test_run_with_a_terminal(own_root):
    terminal = Terminal("run", "-t", "tiny", "--", "sh", "-c", "tty; stty size; read line; echo got $line; exit 6")
    terminal.read_until("30 100")
    assert "/dev/pts/0" in terminal.output
    terminal.type("typed\n")
    code, output = terminal.end()
    assert code == 6
    assert "got typed" in output


def test_window_size_is_passed_on(own_root):
    terminal = Terminal("run", "-t", "tiny", "--", "sh", "-c", "echo ready; while sleep 0.1; do stty size; done")
    terminal.read_until("30 100")
    terminal.resize(44, 133)
    terminal.read_until("44 133")
    terminal.type("\x03")
    assert terminal.end()[0] == 130


def test_ctrl_c_on_a_terminal_goes_to_the_workload(own_root):
    script = "trap 'echo caught; exit 8' INT; echo ready; while :; do sleep 0.1; done"
    terminal = Terminal("run", "-t", "tiny", "--", "sh", "-c", script)
    terminal.read_until("ready")
    terminal.type("\x03")
    code, output = terminal.end()
    assert code == 8
    assert "caught" in output


def test_ctrl_c_without_tty_flag(own_root):
    """`run` without -t on a terminal: the kernel sends SIGINT to the whole foreground process group."""
    script = "trap 'echo caught; exit 8' INT; echo ready; while :; do sleep 0.1; done"
    terminal = Terminal("run", "tiny", "--", "sh", "-c", script)
    terminal.read_until("ready")
    passes_signals_on(terminal.pid)
    terminal.type("\x03")
    code, output = terminal.end()
    assert code == 8
    assert "caught" in output
    assert instance.names() == []


def test_shell(web):
    terminal = Terminal("shell", "web")
    terminal.read_until("# ")  # input typed before the prompt is discarded
    terminal.type("tty; hostname; stty size\n")
    terminal.read_until("30 100")
    assert "/dev/pts/" in terminal.output
    assert "web" in terminal.output
    terminal.type("exit 3\n")
    assert terminal.end()[0] == 3


def test_shell_in_a_pipe(web):
    result = vmctl("shell", "web", stdin="cat /srv/index.html; echo; exit 4\n")
    assert (result.code, result.out) == (4, "hello\n")


def test_exec_uses_a_terminal_if_it_has_one(web):
    code, output = Terminal("exec", "web", "--", "tty").end()
    assert (code, output.strip().startswith("/dev/pts/")) == (0, True)
    code, output = Terminal("exec", "-T", "web", "--", "sh", "-c", "tty < /dev/null").end()
    assert (code, output.strip()) == (1, "not a tty")
    assert vmctl("exec", "web", "--", "tty").code == 1
    assert vmctl("exec", "--no-stdin", "web", "--", "cat", stdin="lost").out == ""


def test_the_users_terminal_is_restored(own_root):
    """It is in raw mode while the container uses it, and restored when the container has ended, even if killed."""
    terminal = Terminal("run", "-t", "tiny", "--", "sh", "-c", "echo ready; kill -9 -1; sleep 9")
    terminal.read_until("ready")
    before = subprocess.run(["stty", "-a"], stdin=terminal.fd, capture_output=True, text=True, check=True).stdout
    ok("kill", instance.names()[0])
    terminal.end()
    assert "-icanon" in before  # raw meanwhile


def test_up_shows_progress_on_a_terminal_only(own_root, tmp_path):
    text = "image: tiny\ncommand: [sh, -c, 'sleep 0.3; echo ready; sleep 1000']\nready: {log: ready}\n"
    path = write(tmp_path, "slow", text)
    code, output = Terminal("up", path).end()
    assert code == 0
    assert "slow: started" in output
    ok("down", "slow")
    assert "slow: started" not in vmctl("up", path).err
    ok("down", "slow")


# Explain and completion


@pytest.mark.alone
@pytest.mark.parametrize(
    ("mode", "texts"),
    [
        ("container", ["mount -t erofs", "mount -t overlay", "CLONE_NEWPID", "pivot_root", "memory.", "httpd"]),
        ("host", ["mount -t overlay", "chroot"]),
        ("vm", ["<domain", "#cloud-config", "qemu-system", "local-hostname: other", "mke2fs", ".erofs"]),
    ],
)
def test_explain_with_dry_run_shows_the_raw_steps_and_starts_nothing(guest_root, tmp_path, mode, texts):
    before = host_state()
    path = write(tmp_path, "other", WEB.format(port=free_port()) + "resources: {memory: 128M}\n")
    output = ok("up", "--mode", mode, "--explain", "--dry-run", path)
    for text in texts:
        assert text in output
    assert left_behind(before) == {}


def test_explain_without_dry_run_also_starts(own_root, tmp_path):
    path = write(tmp_path, "both", "image: tiny\ncommand: [sleep, '1000']\n")
    output = ok("up", "--explain", path)
    assert output.endswith("both\n")
    assert "clone3" in output
    ok("down", "both")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(shell, tmp_path):
    script = ok("completion", shell)
    assert "vmctl" in script
    if which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_completion_completes(web):
    ask = "COMP_WORDS=(vmctl {}); COMP_CWORD={}; _vmctl; echo ${{COMPREPLY[@]}}"
    path = {**os.environ, "PATH": f"{os.path.dirname(VMCTL)}:{os.environ['PATH']}"}

    def complete(words, number):
        script = ok("completion", "bash") + ask.format(words, number)
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=path, check=True).stdout

    assert complete("in", 1) == "inspect\n"
    assert complete("image hi", 2) == "history\n"
    assert complete("image rm ti", 3) == "tiny\n"
    assert "--no-trunc" in complete("image history --no", 3)
    assert complete("bench ver", 2) == "verify\n"
    assert "--self-test" in complete("bench --se", 2)
    assert "--resume" in complete("bench --re", 2)
    assert "--other-workload" in complete("bench compare --o", 3)
    assert "--allow-missing" in complete("bench web.yaml --al", 3)
    assert complete("commit we", 2) == "web\n"
    assert complete("logs we", 2) == "web\n"
    assert "--tail" in complete("logs --t", 2)
    assert complete("cp we", 2).split()[0] == "web:"
    assert complete("cp web:", 2) == "\n"
    assert complete("rmi ti", 2) == "tiny\n"
    assert complete("container ren", 2) == "rename\n"
    assert complete("compose sc", 2) == "scale\n"
    assert complete("image kernel fe", 3) == "fetch\n"
    assert complete("run --mode ''", 3) == f"{' '.join(sorted(backends.modes()))}\n"
    assert complete("run --mode=v", 2) == "vm\n"
    assert complete("run --network no", 3) == "none\n"
    assert complete("--debug wait --for he", 4) == "healthy\n"
    assert complete("wait --for healthy we", 4) == "web\n"
    assert complete("run tiny -- we", 4) == "\n"
    assert complete("frobnicate we", 2) == "\n"


def test_every_verb_and_action_can_be_completed(own_root):
    """Nothing that is declared makes the search for candidates fail."""
    for command in commands():
        for last in ("", "-", "x"):
            assert isinstance(completing.candidates([*command.words, last]), list)
        for flag in flags(command.parser):
            completing.candidates([*command.words, flag.option_strings[-1], ""])
    for name in aliases.ALIASES:
        first, *action = name.split()
        assert first in VERBS or not action or action[0] in completing.candidates([first, ""]), name
        completing.candidates([*name.split(), ""])


@pytest.mark.parametrize("name", aliases.ALIASES)
def test_every_alias_leads_to_its_verb(name):
    ours = aliases.ALIASES[name].split()
    assert resolved([*name.split(), "-x"]) == [*ours, "-x"]
    assert ours[0] in (*VERBS, "--version")


def test_details_have_every_format(own_root):
    ok("volume", "create", "data")
    ok("network", "create", "back")
    image = "{{.Name}} {{index .RepoTags 0}} {{json .Config.Cmd}}"
    assert ok("image", "inspect", "-f", image, "tiny") == 'tiny tiny ["/bin/sh"]\n'
    assert ok("volume", "inspect", "--format", "{{.Name}} {{.Mountpoint}}", "data").endswith("volumes/data/data\n")
    assert ok("network", "inspect", "--format", "{{.Name}} {{.Internal}}", "back", "back") == "back false\n" * 2
    for verb, name in (("image", "tiny"), ("volume", "data"), ("network", "back")):
        (document,) = json.loads(ok(verb, "inspect", name))
        assert document.keys() == json.loads(ok(verb, "inspect", "--format", "jsonl", name)).keys()
        assert "there is no field" in refused(verb, "inspect", "--format", "{{.Nope}}", name)


def test_help_of_a_verb_has_two_forms():
    assert ok("help", "volume", "rm") == ok("volume", "rm", "--help")
    assert ok("help") == ok("--help")
    assert ok("-v") == ok("--version")


def test_a_flag_after_the_image_is_refused():
    assert "--mode comes after IMAGE" in refused("run", "tiny", "--mode", "host", "--", "true")
    assert ok("run", "--network", "none", "tiny", "--", "echo", "--mode") == "--mode\n"


def test_progress_in_a_pipe_is_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(output, "LINE_S", 0.2)
    progress, quiet = output.Progress(), output.Progress(quiet=True)
    texts = []
    for number in range(50):
        progress(f"step {number}")
        quiet("never")
        texts += filter(None, [capsys.readouterr().err])
        time.sleep(0.02)
    progress.clear()
    assert 2 <= len(texts) <= 5
    assert all(re.fullmatch(r"step \d+\n", text) for text in texts)
    assert capsys.readouterr().err == ""


def test_a_missing_image_can_be_pulled_or_built(own_root):
    err = refused("run", "ngink", "true")
    assert "`vmctl image pull ngink`" in err
    assert "`vmctl image build -t ngink FOLDER`" in err


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: " ".join(command.words))
def test_every_argument_has_a_help_text(command):
    for action in command.parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, action.dest
            assert len(action.help.split()) > 1 or action.metavar, action.dest
    assert command.parser.example
    assert len((command.parser.description or "").split()) > 1
    assert all(action.metavar for action in command.parser._get_positional_actions()), "a name of the code is shown"
