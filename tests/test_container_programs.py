"""A container's program comes from the image: no image can make the host's interpreter run instead."""

import os
import sys

import pytest

from vmctl.programs import run

VMCTL = ".venv/bin/vmctl"
WAY_OUT = "leads out of the image"

SPEC = """
name: exe
image: tiny
command: [sh, -c, "{make}; exec sleep 60"]
network: none
ready: {{exec: [test, -e, /made]}}
"""


@pytest.fixture
def running(own_root, tmp_path):
    """Start a container in which a shell command has created /made."""

    def start(make: str) -> None:
        spec = tmp_path / "exe.yaml"
        spec.write_text(SPEC.format(make=make))
        run([VMCTL, "up", str(spec)])

    yield start
    run([VMCTL, "down", "exe"])


def script(first_line: str) -> str:
    """Return the shell command that makes /made a script, which can be executed but not read."""
    return f"echo '#!{first_line}' >/made.new; chmod 0111 /made.new; mv /made.new /made"


@pytest.mark.parametrize(
    "make",
    [
        "ln -s /proc/self/exe /made",
        script("/proc/self/exe -c"),
        f"ln -s /proc/self/exe /link; {script('/link')}",
        f"echo '#!/proc/1/../self/exe' >/inner; chmod 0755 /inner; {script('/inner')}",
    ],
)
def test_exec_does_not_run_the_hosts_interpreter(running, make):
    running(make)
    code, _, errors = run([VMCTL, "exec", "exe", "--", "/made"], check=False)
    assert code == 125
    assert WAY_OUT in errors


def test_ordinary_scripts_run(running):
    running("printf '#!/bin/sh\\necho from a script\\n' >/made.new; chmod 0755 /made.new; mv /made.new /made")
    assert run([VMCTL, "exec", "exe", "--", "/made"])[1] == "from a script\n"


def test_a_start_does_not_run_it_either(own_root, tmp_path):
    spec = tmp_path / "start.yaml"
    spec.write_text(
        "image: tiny\ncommand: [/made]\nnetwork: none\n"
        'files: [{path: /made, content: "#!/proc/self/exe\\n", mode: "0755"}]\n'
    )
    code, _, errors = run([VMCTL, "up", str(spec)], check=False)
    assert code == 125
    assert WAY_OUT in errors
    assert run([VMCTL, "ps", "-aq"])[1] == ""


IGNORE_ALL = """
import ctypes, os, signal, sys
ignore = (1).to_bytes(8, "little") + bytes(24)  # by rt_sigaction(2): the C library keeps 32 and 33 for itself
for signum in set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    assert ctypes.CDLL(None).syscall(NUMBER, signum, ignore, None, ctypes.c_size_t(8)) == 0
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
os.execv(sys.argv[1], sys.argv[1:])
""".replace("NUMBER", str({"x86_64": 13}.get(os.uname().machine, 134)))


@pytest.mark.parametrize("words", [["run"], ["run", "--mode", "host"], ["exec", "exe"]], ids=" ".join)
def test_no_signal_is_ignored_or_blocked_because_it_was_for_us(running, words):
    running("true >/made")
    image = ["--network", "none", "tiny"] if words == ["run"] else ["tiny"] if words[0] == "run" else []
    ask = [*words, *image, "--", "grep", "-e", "SigIgn", "-e", "SigBlk", "/proc/self/status"]
    said = run([sys.executable, "-c", IGNORE_ALL, VMCTL, *ask])[1].split()
    assert said[1::2] == ["0" * 16] * 2
